//! Guests that are one boot sector: real mode, no kernel, known by every instruction.
//!
//! Firmware (SeaBIOS) loads the first sector of the boot disk to [`LOAD_ADDRESS`] and jumps to it
//! with the disk's BIOS number in DL. Each guest then counts at [`COUNTER_ADDRESS`], where the host
//! can read how far it is. Instruction forms are those of the Intel SDM volume 2; the disk service
//! is the "extended read" of the Enhanced Disk Drive specification, `INT 13h AH=42h`.

/// A boot sector's size, in bytes.
pub const SECTOR_BYTES: usize = 512;

/// Where firmware loads a boot sector, guest-physical.
pub const LOAD_ADDRESS: u16 = 0x7c00;

/// Where a guest counts what it has done, guest-physical: 32 bits, little-endian, wrapping.
pub const COUNTER_ADDRESS: u16 = 0x7e00;

/// Where a [`Guest::Reader`] counts the reads that failed, as [`COUNTER_ADDRESS`].
pub const ERROR_COUNTER_ADDRESS: u16 = 0x7e04;

/// How much a [`Guest::Reader`] reads at once: 8 sectors, 4 KiB.
pub const READ_SECTORS: u32 = 8;

/// Where the number of the boot disk is kept.
const DRIVE_ADDRESS: u16 = 0x7e08;

/// Where a reader's data goes: paragraph 0x800, guest-physical 0x8000 to 0x8fff.
const BUFFER_OFFSET: u16 = 0x8000;

/// Where the disk address packet is in the sector.
const PACKET_OFFSET: usize = 0x1d0;

/// Where a guest moves itself and runs. TCG takes locks and a slow path for every write to a page
/// that has code (qemu: accel/tcg/cputlb.c, `notdirty_write`), so the code leaves the counters'
/// page, and overwrites what it leaves: only then does TCG forget that there was code.
const RUN_ADDRESS: u16 = 0x9000;

/// Firmware boots a sector that ends in these.
const SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// The divisors of the PIT's 1,193,182 Hz that make 1,000.15 Hz and 10,027 Hz.
const PIT_DIVISOR: u16 = 1193;
const PIT_DIVISOR_BRIEF: u16 = 119;

/// What a guest does, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// Reads its boot disk in order, 4 KiB at a time, and begins again at the end.
    Reader {
        /// Where it begins again: a multiple of [`READ_SECTORS`], at least that.
        disk_sectors: u32,
    },
    /// Counts, with all interrupts off: under KVM nothing in it needs the host.
    Hog,
    /// Halts until the timer's next interrupt, 1,000 times a second.
    Idle,
    /// The same, 10,000 times a second: KVM polls for longer than that before it sleeps
    /// (linux: `halt_poll_ns` of virt/kvm/kvm_main.c, 200 us on x86).
    BrieflyIdle,
    /// Reads the clock chip's data port, 0x71, which QEMU serves in its own process under every
    /// accelerator and with the BQL held (qemu: hw/rtc/mc146818rtc.c has no lock of its own).
    PortReader,
}

impl Guest {
    /// What commands and reports call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Guest::Reader { .. } => "reader",
            Guest::Hog => "hog",
            Guest::Idle => "idle",
            Guest::BrieflyIdle => "briefly-idle",
            Guest::PortReader => "port-reader",
        }
    }

    /// The boot sector.
    ///
    /// # Panics
    /// If a reader's disk is not a positive multiple of [`READ_SECTORS`] sectors.
    #[must_use]
    pub fn boot_sector(self) -> [u8; SECTOR_BYTES] {
        let mut code = Code::default();
        code.set_up();
        match self {
            Guest::Reader { disk_sectors } => return code.read(disk_sectors),
            Guest::Hog => code.mask_interrupts(0xff).stop_timer().count(),
            Guest::Idle => code.mask_interrupts(0xfe).halt(PIT_DIVISOR),
            Guest::BrieflyIdle => code.mask_interrupts(0xfe).halt(PIT_DIVISOR_BRIEF),
            Guest::PortReader => code.mask_interrupts(0xff).stop_timer().read_port(),
        }
        code.sector()
    }
}

/// Machine code that begins at [`RUN_ADDRESS`], once it has moved itself there.
#[derive(Debug, Default)]
struct Code {
    bytes: Vec<u8>,
}

impl Code {
    fn emit(&mut self, instruction: &[u8]) -> &mut Code {
        self.bytes.extend_from_slice(instruction);
        self
    }

    /// The address of the next instruction.
    fn here(&self) -> u16 {
        RUN_ADDRESS + u16::try_from(self.bytes.len()).expect("code fits into a sector")
    }

    /// A jump of two bytes to an earlier address: `opcode` is 0xeb for `jmp`.
    fn jump_back(&mut self, opcode: u8, target: u16) -> &mut Code {
        // The distance counts from the end of the jump.
        let distance = i32::from(target) - i32::from(self.here()) - 2;
        let distance = i8::try_from(distance).expect("loops are short");
        self.emit(&[opcode, distance.cast_unsigned()])
    }

    /// An instruction of which the last two bytes are an address or a number of 16 bits.
    fn emit_with(&mut self, instruction: &[u8], number: u16) -> &mut Code {
        self.emit(instruction).emit(&number.to_le_bytes())
    }

    /// All segments 0, a stack below the code, counters 0, interrupts off, and away from here.
    fn set_up(&mut self) {
        self.emit(&[0xfa]); //                                       cli
        self.emit(&[0xfc]); //                                       cld
        self.emit(&[0x31, 0xc0]); //                                 xor ax, ax
        self.emit(&[0x8e, 0xd8]); //                                 mov ds, ax
        self.emit(&[0x8e, 0xc0]); //                                 mov es, ax
        self.emit(&[0x8e, 0xd0]); //                                 mov ss, ax
        self.emit_with(&[0xbc], LOAD_ADDRESS); //                    mov sp, LOAD_ADDRESS
        self.emit(&[0x66, 0x31, 0xc0]); //                           xor eax, eax
        self.emit_with(&[0x66, 0xa3], COUNTER_ADDRESS); //           mov [COUNTER], eax
        self.emit_with(&[0x66, 0xa3], ERROR_COUNTER_ADDRESS); //     mov [ERROR_COUNTER], eax
        self.emit_with(&[0x88, 0x16], DRIVE_ADDRESS); //             mov [DRIVE], dl
        self.emit_with(&[0xbe], LOAD_ADDRESS); //                    mov si, LOAD_ADDRESS
        self.emit_with(&[0xbf], RUN_ADDRESS); //                     mov di, RUN_ADDRESS
        self.emit_with(&[0xb9], 256); //                             mov cx, 256 (words)
        self.emit(&[0xf3, 0xa5]); //                                 rep movsw
        let moved = self.here() + 5;
        self.emit_with(&[0xea], moved).emit(&[0, 0]); //             jmp 0:moved
        let words = u16::try_from(PACKET_OFFSET / 2).expect("in the sector");
        self.emit(&[0x31, 0xc0]); //                                 xor ax, ax
        self.emit_with(&[0xbf], LOAD_ADDRESS); //                    mov di, LOAD_ADDRESS
        self.emit_with(&[0xb9], words); //                           mov cx, words
        self.emit(&[0xf3, 0xab]); //                                 rep stosw
    }

    /// Stops the timer that firmware has left at 18.2 Hz: under KVM each tick is work for a thread
    /// of the kernel's, even if the guest takes no interrupt.
    fn stop_timer(&mut self) -> &mut Code {
        self.emit(&[0xb0, 0x30]); //                                 mov al, 0x30 (channel 0, once)
        self.emit(&[0xe6, 0x43]) //                                  out 0x43, al
    }

    /// Of the two interrupt controllers, only those of the first stay whose bit in `mask` is 0.
    fn mask_interrupts(&mut self, mask: u8) -> &mut Code {
        self.emit(&[0xb0, mask]); //                                 mov al, mask
        self.emit(&[0xe6, 0x21]); //                                 out 0x21, al
        self.emit(&[0xb0, 0xff]); //                                 mov al, 0xff
        self.emit(&[0xe6, 0xa1]) //                                  out 0xa1, al
    }

    fn increment_counter(&mut self, address: u16) -> &mut Code {
        self.emit_with(&[0x66, 0xff, 0x06], address) //              inc dword [address]
    }

    fn count(&mut self) {
        let again = self.here();
        self.increment_counter(COUNTER_ADDRESS).jump_back(0xeb, again); // jmp again
    }

    fn read_port(&mut self) {
        // Register 0x0f (shutdown status) has no side effect; bit 7 keeps the NMI off.
        self.emit(&[0xb0, 0x8f]); //                                 mov al, 0x8f
        self.emit(&[0xe6, 0x70]); //                                 out 0x70, al
        let again = self.here();
        self.emit(&[0xe4, 0x71]); //                                 in al, 0x71
        self.increment_counter(COUNTER_ADDRESS).jump_back(0xeb, again); // jmp again
    }

    fn halt(&mut self, divisor: u16) {
        // The firmware's own handler would do more at each interrupt than acknowledge it.
        let handler = self.here() + 2;
        self.emit(&[0xeb, 0x07]); //                                 jmp over the handler's 7 bytes
        self.emit(&[0x50]); //                               handler: push ax
        self.emit(&[0xb0, 0x20]); //                                 mov al, 0x20 (end of interrupt)
        self.emit(&[0xe6, 0x20]); //                                 out 0x20, al
        self.emit(&[0x58]).emit(&[0xcf]); //                         pop ax; iret
        self.start_timer(handler, divisor);
        let again = self.here();
        self.emit(&[0xfb]).emit(&[0xf4]); //                         sti; hlt
        self.increment_counter(COUNTER_ADDRESS).jump_back(0xeb, again); // jmp again
    }

    fn start_timer(&mut self, handler: u16, divisor: u16) {
        // IRQ 0 is interrupt 8 in the layout that the firmware programs.
        self.emit_with(&[0xc7, 0x06, 0x20, 0x00], handler); //       mov word [8 * 4], handler
        self.emit_with(&[0xc7, 0x06, 0x22, 0x00], 0); //             mov word [8 * 4 + 2], 0
        let [low, high] = divisor.to_le_bytes();
        self.emit(&[0xb0, 0x34]); //                                 mov al, 0x34 (channel 0, rate)
        self.emit(&[0xe6, 0x43]); //                                 out 0x43, al
        self.emit(&[0xb0, low]).emit(&[0xe6, 0x40]); //              mov al, low; out 0x40, al
        self.emit(&[0xb0, high]).emit(&[0xe6, 0x40]); //             mov al, high; out 0x40, al
    }

    fn read(mut self, disk_sectors: u32) -> [u8; SECTOR_BYTES] {
        let whole = disk_sectors > 0 && disk_sectors.is_multiple_of(READ_SECTORS);
        assert!(whole, "a reader's disk has a whole number of reads, not {disk_sectors} sectors");
        let packet = LOAD_ADDRESS + u16::try_from(PACKET_OFFSET).expect("in the sector");
        let position = packet + 8;
        // Disk drivers that wait for an interrupt, IDE's for one, need them on.
        self.emit(&[0xfb]); //                                       sti
        let again = self.here();
        self.emit_with(&[0xbe], packet); //                          mov si, packet
        self.emit_with(&[0x8a, 0x16], DRIVE_ADDRESS); //             mov dl, [DRIVE]
        self.emit(&[0xb4, 0x42]); //                                 mov ah, 0x42
        self.emit(&[0xcd, 0x13]); //                                 int 0x13
        self.emit(&[0x73, 0x07]); //                                 jnc good (over 7 bytes)
        self.increment_counter(ERROR_COUNTER_ADDRESS).jump_back(0xeb, again); // jmp again
        self.increment_counter(COUNTER_ADDRESS); //            good: inc dword [COUNTER]
        let [step, ..] = READ_SECTORS.to_le_bytes();
        self.emit_with(&[0x66, 0x83, 0x06], position).emit(&[step]); // add dword [position], step
        self.emit_with(&[0x66, 0x81, 0x3e], position); //            cmp dword [position], ...
        self.emit(&disk_sectors.to_le_bytes()); //                       ... disk_sectors
        self.jump_back(0x72, again); //                              jb again
        self.emit(&[0x66, 0x31, 0xc0]); //                           xor eax, eax
        self.emit_with(&[0x66, 0xa3], position); //                  mov [position], eax
        self.jump_back(0xeb, again); //                              jmp again
        let mut sector = self.sector();
        sector[PACKET_OFFSET..PACKET_OFFSET + 16].copy_from_slice(&address_packet());
        sector
    }

    fn sector(&self) -> [u8; SECTOR_BYTES] {
        let mut sector = [0; SECTOR_BYTES];
        assert!(self.bytes.len() <= PACKET_OFFSET, "code ends before the packet");
        sector[..self.bytes.len()].copy_from_slice(&self.bytes);
        sector[SECTOR_BYTES - 2..].copy_from_slice(&SIGNATURE);
        sector
    }
}

/// The disk address packet of the first read: its own size, the sectors, where to, where from.
fn address_packet() -> [u8; 16] {
    let mut packet = [0; 16];
    packet[0] = 16;
    packet[2..4].copy_from_slice(&8_u16.to_le_bytes());
    packet[4..6].copy_from_slice(&BUFFER_OFFSET.to_le_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Guest; 5] = [
        Guest::Reader { disk_sectors: 0x8000 },
        Guest::Hog,
        Guest::Idle,
        Guest::BrieflyIdle,
        Guest::PortReader,
    ];

    /// Where the two-byte jump that begins at `offset` goes.
    fn jump_target(sector: &[u8], offset: usize) -> usize {
        let distance = isize::from(sector[offset + 1].cast_signed());
        (offset + 2).checked_add_signed(distance).expect("it stays in the sector")
    }

    fn find(sector: &[u8], instruction: &[u8]) -> usize {
        let found = sector.windows(instruction.len()).position(|window| window == instruction);
        found.expect("the instruction is there")
    }

    #[test]
    fn firmware_boots_every_one_of_them() {
        for guest in ALL {
            let sector = guest.boot_sector();
            assert_eq!(sector[510..], [0x55, 0xaa], "{}", guest.name());
            assert_eq!(sector[0], 0xfa, "{} begins with cli", guest.name());
            // A far jump to what follows it, where it has been moved to.
            let jump = find(&sector, &[0xf3, 0xa5]) + 2;
            let target = u16::from_le_bytes([sector[jump + 1], sector[jump + 2]]);
            assert_eq!((sector[jump], usize::from(target)), (0xea, 0x9000 + jump + 5));
        }
    }

    #[test]
    fn every_loop_goes_back_to_its_first_instruction() {
        let first_of_loop: [(Guest, &[u8]); 5] = [
            (ALL[0], &[0xbe, 0xd0, 0x7d]),
            (Guest::Hog, &[0x66, 0xff, 0x06, 0x00, 0x7e]),
            (Guest::Idle, &[0xfb, 0xf4]),
            (Guest::BrieflyIdle, &[0xfb, 0xf4]),
            (Guest::PortReader, &[0xe4, 0x71]),
        ];
        for (guest, first) in first_of_loop {
            let sector = guest.boot_sector();
            let last = sector[..PACKET_OFFSET].iter().rposition(|&byte| byte != 0);
            let jump = last.expect("there is code") - 1;
            assert_eq!(sector[jump], 0xeb, "{} ends in a jump", guest.name());
            assert_eq!(jump_target(&sector, jump), find(&sector, first), "{}", guest.name());
        }
    }

    #[test]
    fn a_reader_counts_good_reads_and_bad_ones_apart_and_begins_again_at_the_end() {
        let sector = ALL[0].boot_sector();
        let branch = find(&sector, &[0x73, 0x07]);
        let good = jump_target(&sector, branch);
        assert_eq!(sector[branch + 2..][..5], [0x66, 0xff, 0x06, 0x04, 0x7e], "errors");
        assert_eq!(sector[good..][..5], [0x66, 0xff, 0x06, 0x00, 0x7e], "reads");
        assert_eq!(sector[good + 5..][..6], [0x66, 0x83, 0x06, 0xd8, 0x7d, 8], "8 sectors on");
        let compare = [0x66, 0x81, 0x3e, 0xd8, 0x7d, 0x00, 0x80, 0x00, 0x00];
        assert_eq!(sector[good + 11..][..9], compare, "the disk's 0x8000 sectors");
        let packet = [16, 0, 8, 0, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(sector[PACKET_OFFSET..][..16], packet);
    }

    #[test]
    fn an_idle_guest_handles_its_timer_itself() {
        let sector = Guest::Idle.boot_sector();
        let handler = find(&sector, &[0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf]);
        assert_eq!(jump_target(&sector, handler - 2), handler + 7, "the handler is jumped over");
        let install = find(&sector, &[0xc7, 0x06, 0x20, 0x00]);
        let installed = [sector[install + 4], sector[install + 5]];
        assert_eq!(usize::from(u16::from_le_bytes(installed)), 0x9000 + handler);
    }

    #[test]
    #[should_panic(expected = "not 12 sectors")]
    fn a_disk_that_ends_within_a_read_is_no_disk() {
        let _ = Guest::Reader { disk_sectors: 12 }.boot_sector();
    }
}
