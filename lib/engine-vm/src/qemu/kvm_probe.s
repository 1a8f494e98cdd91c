# The boot sector that accel.rs runs to see whether KVM carries guest code. Real mode to 64-bit mode with paging, a few
# instructions that a kernel needs early, then 0x2a to QEMU's debug-exit port.
.code16
start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7000, %sp
    # Page tables at 0x1000, 0x2000, 0x3000: the first 2 MiB, one to one.
    movl $0x1000, %edi
    xorl %eax, %eax
    movl $0xc00, %ecx
    rep stosl
    movl $0x2003, 0x1000
    movl $0x3003, 0x2000
    movl $0x83, 0x3000
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $0x1000, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax
    movl %eax, %cr0
    lgdt 0x7c00 + gdtr - start
    ljmp $8, $(0x7c00 + long - start)
.code64
long:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %ss
    movq $0x5000, %rsp
    fninit
    movq %cr4, %rax
    orq $0x600, %rax
    movq %rax, %cr4
    pxor %xmm0, %xmm0
    movdqu %xmm0, 0x6000
    lock incq 0x6010
    movl $0x2a, %eax
    outb %al, $0xf4
1:  hlt
    jmp 1b
.align 8
gdt:
    .quad 0
    .quad 0x00209a0000000000
    .quad 0x0000920000000000
gdtr:
    .word 23
    .long 0x7c00 + gdt - start
