/* emulator_switch(void **save, void *load): from one stack to another. x86-64, System V calling convention:
 * the registers that a function must preserve go onto the stack that is left, whose pointer goes to *save. */
#if defined(__x86_64__)
    .text
    .globl emulator_switch
    .hidden emulator_switch
    .type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size emulator_switch, .-emulator_switch
#endif
    .section .note.GNU-stack, "", @progbits
