; A guest that proves its own memory: one boot sector, no system, no BIOS once it runs.
;
; It stamps each page from 1 MiB to `top` with (page number, generation), in its first and in its
; last 8 bytes, says "up TOP", and then at every tick of the timer, between which it halts:
;   - says "t COUNTER";
;   - overwrites, in order and over and over, the pages of its working set that are due by the
;     clock, each with the next generation, after a look at what it had written there;
;   - looks at the next `checks` pages of all of its memory.
; A page that is wrong is said, "bad PAGE", and left as it is. Numbers are 8 hex digits.
; The rest of a page is nobody's: what a test puts there stays.
;
; After a change: nasm -f bin -l guest.lst -o /dev/null guest.asm

%define at(label) (label - $$ + 0x7C00) ; no org: so the bytes of the listing are final
FIRST   equ 256                 ; the page at 1 MiB
PM_TIMER equ 0x608              ; ACPI: its clock stands still when the guest does
PM_HZ   equ 3579545
; All that it knows, at `ebp`: in a page without code, since a write there would discard what is
; translated of it.
state   equ 0x6000              ; the stack is below it
top     equ 0                   ; the first page that is not ours
work    equ 4                   ; the first page of the working set
work_end equ 8                  ; the first page behind it
rate    equ 12                  ; pages to overwrite in a second; 0: an idle guest
checks  equ 16                  ; pages to look at in a tick
divisor equ 20                  ; of 1,193,182 Hz
counter equ 24                  ; ticks that were said
part    equ 28                  ; of the next page to overwrite, in 1 / PM_HZ
sweep   equ 32                  ; generation of the working set at and behind `work_at`
work_at equ 36                  ; the page that is overwritten next
check_at equ 40                 ; the page that is looked at next
then    equ 44                  ; the clock at the last tick

bits 16
        jmp short start
        times 4 - ($ - $$) nop
; What a test sets, in the order of `state`; see sector.py.
given   dd 0x4000, 1024, 2048, 0, 500, 11932
known   dd 0, 0, 1              ; `counter`, `part`, `sweep`
all_given equ $ - given

start:  cli
        cld
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov si, at(given)
        mov di, state
        mov cx, all_given
        rep movsb
        in al, 0x92             ; A20
        or al, 2
        out 0x92, al
        lgdt [at(gdtr)]
        lidt [at(idtr)]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp 8:at(flat)

bits 32
flat:   mov ax, 16
        mov ds, ax
        mov ss, ax
        mov ebp, state
        mov esp, ebp

        mov al, 0x11            ; PIC: vectors from 32 on, no EOI needed
        out 0x20, al
        mov al, 32
        out 0x21, al
        mov al, 4
        out 0x21, al
        mov al, 3
        out 0x21, al
        mov al, 0xFE            ; the timer alone
        out 0x21, al
        mov al, 0x34            ; PIT: channel 0, a pulse every `divisor`
        out 0x43, al
        mov eax, [ebp + divisor]
        out 0x40, al
        mov al, ah
        out 0x40, al

        mov edx, 1
        mov ecx, FIRST
        mov [ebp + check_at], ecx
stamp:  call write
        inc ecx
        cmp ecx, [ebp + top]
        jb stamp

        mov eax, [ebp + work]
        mov [ebp + work_at], eax
        mov dx, PM_TIMER
        in eax, dx
        mov [ebp + then], eax
        mov eax, 'up '
        mov ebx, ecx
        call say

tick:   sti                     ; a tick during the work below ends the next halt
        hlt
timer:  add esp, 12             ; nobody returns from it: a nested KVM may not know how to
        inc dword [ebp + counter]
        mov eax, 't '
        mov ebx, [ebp + counter]
        call say

        mov dx, PM_TIMER        ; a busy host loses ticks, but no time
        in eax, dx
        mov ebx, eax
        sub eax, [ebp + then]
        mov [ebp + then], ebx
        and eax, 0xFFFFFF       ; it has 24 bits
        mul dword [ebp + rate]
        add eax, [ebp + part]
        adc edx, 0
        mov ebx, PM_HZ
        div ebx
        mov [ebp + part], edx
        mov esi, eax            ; so many pages are due
        mov ecx, [ebp + work_at]
dirty:  dec esi
        js looked
        mov edx, [ebp + sweep]
        call check
        inc edx
        call write
        inc ecx
        cmp ecx, [ebp + work_end]
        jb dirty
        mov ecx, [ebp + work]
        inc dword [ebp + sweep]
        jmp dirty
looked: mov [ebp + work_at], ecx

        mov esi, [ebp + checks]
        mov ecx, [ebp + check_at]
look:   dec esi
        js done
        mov edx, 1              ; outside of the working set
        cmp ecx, [ebp + work]
        jb .known
        cmp ecx, [ebp + work_end]
        jae .known
        mov edx, [ebp + sweep]
        cmp ecx, [ebp + work_at]
        adc edx, 0              ; before `work_at`: one more
.known: call check
        inc ecx
        cmp ecx, [ebp + top]
        jb look
        mov ecx, FIRST
        jmp look
done:   mov [ebp + check_at], ecx
        jmp tick

; Page `ecx` gets generation `edx`.
write:  mov edi, ecx
        shl edi, 12
        mov [edi], ecx
        mov [edi + 4], edx
        mov [edi + 4088], ecx
        mov [edi + 4092], edx
        ret

; Page `ecx` has to have generation `edx`.
check:  mov edi, ecx
        shl edi, 12
        cmp [edi], ecx
        jne .bad
        cmp [edi + 4], edx
        jne .bad
        cmp [edi + 4088], ecx
        jne .bad
        cmp [edi + 4092], edx
        jne .bad
        ret
.bad:   pushad
        mov eax, 'bad '
        mov ebx, ecx
        call say
        popad
        ret

; The text in `eax`, the number `ebx` and the end of a line, to the serial port.
say:    pushad
.text:  call put
        shr eax, 8
        jnz .text
        mov ecx, 8
.digit: rol ebx, 4
        mov al, bl
        and al, 15
        cmp al, 10
        sbb al, 0x69
        das                     ; 0 to 15 has become its digit
        call put
        loop .digit
        mov al, 10
        call put
        popad
        ret

; The byte `al`, once there is room for it.
put:    push eax
        mov dx, 0x3FD
.full:  in al, dx
        test al, 0x20
        jz .full
        mov dl, 0xF8
        pop eax
        out dx, al
        ret

gdt     dw 0xFFFF, 0, 0x9A00, 0xCF      ; 8: code, all 4 GiB
        dw 0xFFFF, 0, 0x9200, 0xCF      ; 16: data
gate    dw at(timer), 8, 0x8E00, 0
gdtr    dw 23
        dd at(gdt) - 8          ; nobody reads the descriptor at 0
idtr    dw 33 * 8 - 1
        dd at(gate) - 32 * 8    ; only vector 32 is ever used

        times 510 - ($ - $$) db 0
        dw 0xAA55
