#![allow(unsafe_code)] // the fast path of every load and store: one compare, one move in guest RAM
//! Loads and stores of the guest: the fast path through the TLB, and everything else behind it.
//!
//! Not responsible for: what is outside RAM ([`CpuIo`] has it).

use super::walk::Want;
use super::{CHECKED, Mmu, SLOW};
use crate::cpu::{Cpu, SEGS, Width};
use crate::fault::R;
use crate::op::{CHECK_SEGMENT, NO_SEG, Op};
use gemel_machine::CpuIo;
use gemel_machine::ram::{CODE, DIRTY, TABLE};
use gemel_x86::segment::{CS, SS, attr};
use gemel_x86::{Exception, Vector};

/// Bytes of the widest access.
const WIDEST: usize = 32;

/// A value that moves between memory and the CPU in one access: `u8` to `u128`, and two of those. Any bit pattern is valid.
pub trait Mem: Copy + 'static {
    /// Bytes.
    const SIZE: usize;
    /// From little-endian bytes.
    fn from_slice(bytes: &[u8]) -> Self;
    /// To little-endian bytes, in the first [`Mem::SIZE`] of 32.
    fn to_bytes(self) -> [u8; WIDEST];
}

macro_rules! mem {
    ($($t:ty),*) => {$(
        impl Mem for $t {
            const SIZE: usize = size_of::<$t>();
            fn from_slice(bytes: &[u8]) -> Self {
                let mut b = [0; size_of::<$t>()];
                b.copy_from_slice(&bytes[..size_of::<$t>()]);
                Self::from_le_bytes(b)
            }
            fn to_bytes(self) -> [u8; WIDEST] {
                let mut b = [0; WIDEST];
                b[..size_of::<$t>()].copy_from_slice(&self.to_le_bytes());
                b
            }
        }
    )*};
}
mem!(u8, u16, u32, u64, u128);

impl Mem for [u128; 2] {
    const SIZE: usize = 32;
    fn from_slice(bytes: &[u8]) -> Self {
        [u128::from_slice(&bytes[..16]), u128::from_slice(&bytes[16..])]
    }
    fn to_bytes(self) -> [u8; WIDEST] {
        let mut b = self[0].to_bytes();
        b[16..].copy_from_slice(&self[1].to_le_bytes());
        b
    }
}

/// Where one page's part of an access lies.
enum Place {
    /// In RAM.
    Ram { page: u32 },
    /// Behind the bus, at a guest physical address.
    Bus(u64),
}

impl Cpu {
    /// The linear address of the op's memory operand, segment-checked for an access of `bytes` bytes.
    #[inline(always)]
    pub fn linear(&mut self, op: &Op, bytes: u64, write: bool) -> R<u64> {
        let ea = self.ea(op);
        if op.has(CHECK_SEGMENT) {
            self.checked_linear(op.seg, ea, bytes, write)
        } else {
            Ok(ea.wrapping_add(self.seg_base[op.seg as usize % SEGS]))
        }
    }

    /// The linear address of a memory operand of `bytes` bytes that must be aligned to its size. Alignment comes first: an operand
    /// that is neither aligned nor inside SS raises #GP, not #SS, as silicon does.
    #[inline(always)]
    pub fn linear_aligned(&mut self, op: &Op, bytes: u64, write: bool) -> R<u64> {
        let lin = self.ea(op).wrapping_add(self.seg_base[op.seg as usize % SEGS]);
        if lin & (bytes - 1) != 0 {
            return self.general_protection(0);
        }
        self.linear(op, bytes, write)
    }

    /// The linear address of an offset in a segment, with the checks of SDM 3A 5.3 and 5.5 (legacy modes).
    #[cold]
    #[inline(never)]
    pub fn checked_linear(&mut self, seg: u8, offset: u64, bytes: u64, write: bool) -> R<u64> {
        if self.is_64() || seg >= NO_SEG {
            return Ok(offset.wrapping_add(self.seg_base[seg as usize % SEGS]));
        }
        let s = self.s.seg[seg as usize];
        let offset = offset & 0xffff_ffff;
        let code = s.has(attr::CODE);
        let type_ok = s.has(attr::P)
            && match (code, write) {
                (true, true) => false,
                (true, false) => s.has(attr::READ_WRITE),
                (false, true) => s.has(attr::READ_WRITE),
                (false, false) => true,
            };
        let last = offset + (bytes - 1);
        let inside = if !code && s.has(attr::DOWN_CONFORMING) {
            let top = if s.has(attr::DB) { 0xffff_ffff } else { 0xffff };
            offset > u64::from(s.limit) && last <= top
        } else {
            last <= u64::from(s.limit)
        };
        // Real mode and virtual-8086 segments are always usable; their hidden attributes say read and write.
        if type_ok && inside {
            return Ok(s.base.wrapping_add(offset) & 0xffff_ffff);
        }
        let vector = if seg as usize == SS { Vector::Stack } else { Vector::GeneralProtection };
        self.fail(Exception::with_error(vector, 0))
    }

    /// Loads the op's memory operand.
    #[inline(always)]
    pub fn load<T: Mem>(&mut self, op: &Op, io: &mut dyn CpuIo) -> R<T> {
        let lin = self.linear(op, T::SIZE as u64, false)?;
        self.read(lin, op.seg, io)
    }

    /// Stores to the op's memory operand.
    #[inline(always)]
    pub fn store<T: Mem>(&mut self, op: &Op, value: T, io: &mut dyn CpuIo) -> R {
        let lin = self.linear(op, T::SIZE as u64, true)?;
        self.write(lin, op.seg, value, io)
    }

    /// Loads the op's memory operand and goes on with it. Like [`Cpu::load`], but everything beyond the fast path is a tail
    /// call, so that the common case saves no registers: for the instructions that make up most of every program.
    #[inline(always)]
    pub fn load_then<T: Mem>(&mut self, op: &Op, io: &mut dyn CpuIo, then: impl Fn(&mut Self, &Op, T)) -> R {
        #[cold]
        #[inline(never)]
        fn slow<T: Mem, F: Fn(&mut Cpu, &Op, T)>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo, then: F) -> R {
            let value = c.load::<T>(op, io)?;
            then(c, op, value);
            Ok(())
        }
        if !op.has(CHECK_SEGMENT) {
            let lin = self.ea(op).wrapping_add(self.seg_base[op.seg as usize % SEGS]);
            let e = self.mmu.entry(lin);
            if lin.wrapping_add(T::SIZE as u64 - 1) & !0xfff == e.read {
                let host = (lin as usize).wrapping_add(e.addend) as *const T;
                // SAFETY: as in `read`.
                let value = unsafe { host.read_unaligned() };
                then(self, op, value);
                return Ok(());
            }
        }
        slow(self, op, io, then)
    }

    /// Stores a value to the op's memory operand; tail calls as in [`Cpu::load_then`].
    #[inline(always)]
    pub fn store_from<T: Mem>(&mut self, op: &Op, io: &mut dyn CpuIo, value: impl Fn(&Self, &Op) -> T) -> R {
        #[cold]
        #[inline(never)]
        fn slow<T: Mem, F: Fn(&Cpu, &Op) -> T>(c: &mut Cpu, op: &Op, io: &mut dyn CpuIo, value: F) -> R {
            let value = value(c, op);
            c.store(op, value, io)
        }
        if !op.has(CHECK_SEGMENT) {
            let lin = self.ea(op).wrapping_add(self.seg_base[op.seg as usize % SEGS]);
            let e = self.mmu.entry(lin);
            if lin.wrapping_add(T::SIZE as u64 - 1) & !0xfff == e.write {
                let host = (lin as usize).wrapping_add(e.addend) as *mut T;
                // SAFETY: as in `write`.
                unsafe { host.write_unaligned(value(self, op)) };
                return Ok(());
            }
        }
        slow(self, op, io, value)
    }

    /// Changes the op's memory operand in place; tail calls as in [`Cpu::load_then`], order as in [`Cpu::rmw`].
    #[inline(always)]
    pub fn change<T: Mem>(
        &mut self,
        op: &Op,
        io: &mut dyn CpuIo,
        change: impl Fn(&mut Self, &Op, T) -> T,
    ) -> R {
        #[cold]
        #[inline(never)]
        fn slow<T: Mem, F: Fn(&mut Cpu, &Op, T) -> T>(
            c: &mut Cpu,
            op: &Op,
            io: &mut dyn CpuIo,
            change: F,
        ) -> R {
            c.rmw::<T>(op, io, |c, old| change(c, op, old)).map(drop)
        }
        if !op.has(CHECK_SEGMENT) {
            let lin = self.ea(op).wrapping_add(self.seg_base[op.seg as usize % SEGS]);
            let e = self.mmu.entry(lin);
            if lin.wrapping_add(T::SIZE as u64 - 1) & !0xfff == e.write {
                let host = (lin as usize).wrapping_add(e.addend) as *mut T;
                // SAFETY: as in `rmw`.
                unsafe {
                    let new = change(self, op, host.read_unaligned());
                    host.write_unaligned(new);
                }
                return Ok(());
            }
        }
        slow(self, op, io, change)
    }

    /// Loads from a linear address; `seg` tells #SS from #GP for non-canonical ones.
    #[inline(always)]
    pub fn read<T: Mem>(&mut self, lin: u64, seg: u8, io: &mut dyn CpuIo) -> R<T> {
        let e = self.mmu.entry(lin);
        if lin.wrapping_add(T::SIZE as u64 - 1) & !0xfff == e.read {
            let host = (lin as usize).wrapping_add(e.addend) as *const T;
            // SAFETY: the read tag says that `lin` lies in a page of RAM whose host address is `lin + addend`, and the
            // compare that the last byte lies in the same page. T is made of integers, so any bytes are valid.
            return Ok(unsafe { host.read_unaligned() });
        }
        self.read_slow(lin, seg, io)
    }

    /// Stores to a linear address.
    #[inline(always)]
    pub fn write<T: Mem>(&mut self, lin: u64, seg: u8, value: T, io: &mut dyn CpuIo) -> R {
        let e = self.mmu.entry(lin);
        if lin.wrapping_add(T::SIZE as u64 - 1) & !0xfff == e.write {
            let host = (lin as usize).wrapping_add(e.addend) as *mut T;
            // SAFETY: as in `read`; a fast write tag also says that the page is marked dirty and carries no mark
            // that wants to hear of stores.
            unsafe { host.write_unaligned(value) };
            return Ok(());
        }
        self.write_slow(lin, seg, &value.to_bytes()[..T::SIZE], io)
    }

    /// Reads the op's memory operand, changes it, writes it back; returns the old value. The store's permission is
    /// checked before anything is read, as hardware does.
    #[inline(always)]
    pub fn rmw<T: Mem>(
        &mut self,
        op: &Op,
        io: &mut dyn CpuIo,
        change: impl FnOnce(&mut Self, T) -> T,
    ) -> R<T> {
        let lin = self.linear(op, T::SIZE as u64, true)?;
        let e = self.mmu.entry(lin);
        if lin.wrapping_add(T::SIZE as u64 - 1) & !0xfff == e.write {
            let host = (lin as usize).wrapping_add(e.addend) as *mut T;
            // SAFETY: as in `read` and `write`; `change` cannot unmap guest RAM.
            unsafe {
                let old = host.read_unaligned();
                let new = change(self, old);
                host.write_unaligned(new);
                return Ok(old);
            }
        }
        self.check_write(lin, T::SIZE, op.seg, io)?;
        let old = self.read::<T>(lin, op.seg, io)?;
        let new = change(self, old);
        self.write(lin, op.seg, new, io)?;
        Ok(old)
    }

    #[cold]
    #[inline(never)]
    fn read_slow<T: Mem>(&mut self, lin: u64, seg: u8, io: &mut dyn CpuIo) -> R<T> {
        let mut bytes = [0; WIDEST];
        self.read_bytes(lin, seg, &mut bytes[..T::SIZE], io)?;
        Ok(T::from_slice(&bytes))
    }

    /// Loads bytes from a linear address: one access, however many pages it spans.
    pub fn read_bytes(&mut self, lin: u64, seg: u8, out: &mut [u8], io: &mut dyn CpuIo) -> R {
        self.check_address(lin, out.len(), seg, false)?;
        let mode = self.plain_access_mode();
        self.read_bytes_as(lin, out, mode, io)
    }

    fn read_bytes_as(&mut self, lin: u64, out: &mut [u8], mode: usize, io: &mut dyn CpuIo) -> R {
        let head = piece(lin, out.len());
        if head < out.len() {
            // Both pages must be there before anything is read: a bus read has effects.
            self.place(lin, Want::Read, mode)?;
            let next = self.wrap_linear(lin.wrapping_add(head as u64));
            self.place(next, Want::Read, mode)?;
            let (a, b) = out.split_at_mut(head);
            self.read_bytes_as(lin, a, mode, io)?;
            return self.read_bytes_as(next, b, mode, io);
        }
        match self.place(lin, Want::Read, mode)? {
            Place::Ram { page } => {
                // SAFETY: `piece` keeps the range inside the page; `out` is not guest memory.
                unsafe {
                    let host = self.ram.host_page(page).add(lin as usize & 0xfff);
                    host.copy_to_nonoverlapping(out.as_mut_ptr(), out.len());
                }
            }
            Place::Bus(mut address) => {
                let mut rest = out;
                while !rest.is_empty() {
                    let n = bus_size(address, rest.len());
                    self.leave_guest();
                    let (value, attention) = io.mmio_read(self.io_position(), address, n as u8);
                    self.attend(attention);
                    rest[..n].copy_from_slice(&value.to_le_bytes()[..n]);
                    rest = &mut rest[n..];
                    address += n as u64;
                }
            }
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn write_slow(&mut self, lin: u64, seg: u8, data: &[u8], io: &mut dyn CpuIo) -> R {
        self.write_bytes(lin, seg, data, io)
    }

    /// Stores bytes to a linear address: one access, however many pages it spans.
    pub fn write_bytes(&mut self, lin: u64, seg: u8, data: &[u8], io: &mut dyn CpuIo) -> R {
        self.check_address(lin, data.len(), seg, true)?;
        let mode = self.plain_access_mode();
        self.write_bytes_as(lin, data, mode, io)
    }

    fn write_bytes_as(&mut self, lin: u64, data: &[u8], mode: usize, io: &mut dyn CpuIo) -> R {
        let head = piece(lin, data.len());
        if head < data.len() {
            self.place(lin, Want::Write, mode)?;
            let next = self.wrap_linear(lin.wrapping_add(head as u64));
            self.place(next, Want::Write, mode)?;
            self.write_bytes_as(lin, &data[..head], mode, io)?;
            return self.write_bytes_as(next, &data[head..], mode, io);
        }
        match self.place(lin, Want::Write, mode)? {
            Place::Ram { page } => {
                let offset = lin as usize & 0xfff;
                self.note_write(page, offset, data.len());
                // SAFETY: `piece` keeps the range inside the page; `data` is not guest memory.
                unsafe {
                    let host = self.ram.host_page(page).add(offset);
                    host.copy_from_nonoverlapping(data.as_ptr(), data.len());
                }
            }
            Place::Bus(mut address) => {
                let mut rest = data;
                while !rest.is_empty() {
                    let n = bus_size(address, rest.len());
                    let mut value = [0; 8];
                    value[..n].copy_from_slice(&rest[..n]);
                    self.leave_guest();
                    let attention =
                        io.mmio_write(self.io_position(), address, n as u8, u64::from_le_bytes(value));
                    self.attend(attention);
                    rest = &rest[n..];
                    address += n as u64;
                }
            }
        }
        Ok(())
    }

    /// Before bytes of a page change: its marks.
    pub(crate) fn note_write(&mut self, page: u32, offset: usize, len: usize) {
        let marks = self.ram.marks(page);
        if marks & DIRTY == 0 {
            self.ram.mark(page, DIRTY);
        }
        if marks & CODE != 0 && self.blocks.written(page, offset, len, &self.ram) {
            self.limit = 0;
        }
        if marks & TABLE != 0 {
            self.table_written(page, offset, len);
        }
    }

    /// Translates one page's part of an access and fills the TLB.
    fn place(&mut self, lin: u64, want: Want, mode: usize) -> R<Place> {
        let tag = lin & !0xfff;
        let slot = Mmu::slot(self.mmu.space, mode, lin);
        let e = self.mmu.entries[slot];
        let known = match want {
            Want::Write => e.write & !SLOW == tag,
            _ => e.read == tag,
        };
        if known {
            // A store through a slow tag: once its page is dirty and wants nothing more, the tag gets fast.
            if want == Want::Write && self.ram.marks(e.page) & (CODE | TABLE) == 0 {
                self.ram.mark(e.page, DIRTY);
                self.mmu.speed_up(slot);
            }
            return Ok(Place::Ram { page: e.page });
        }
        let walked = self.walk(lin, want, mode)?;
        let Some(page) = self.ram.page_at(walked.physical) else {
            return Ok(Place::Bus(walked.physical));
        };
        if want == Want::Write && self.ram.marks(page) & (CODE | TABLE) == 0 {
            self.ram.mark(page, DIRTY);
        }
        self.mmu.fill(lin, mode, page, walked.writable, &self.ram);
        Ok(Place::Ram { page })
    }

    /// Copies up to `most` elements of `size` bytes forward, as repeated MOVS would, as far as both sides stay in one page that
    /// the fast path knows. Returns how many were copied; zero when none could.
    pub(crate) fn bulk_copy(&mut self, to: u64, from: u64, most: u64, size: u64) -> u64 {
        let (d, s) = (self.mmu.entry(to), self.mmu.entry(from));
        if d.write != to & !0xfff || s.read != from & !0xfff {
            return 0;
        }
        let room = (4096 - (to & 0xfff)).min(4096 - (from & 0xfff));
        let n = most.min(room / size);
        let bytes = (n * size) as usize;
        let target = (to as usize).wrapping_add(d.addend);
        let source = (from as usize).wrapping_add(s.addend);
        // An overlap with the target ahead repeats a pattern, element by element.
        if target.wrapping_sub(source) < bytes {
            return 0;
        }
        // SAFETY: the tags say that both addresses lie in pages of RAM that may be read and written, and `room` keeps
        // the ranges inside those pages.
        unsafe { std::ptr::copy(source as *const u8, target as *mut u8, bytes) };
        n
    }

    /// Fills up to `most` elements, as repeated STOS would, as far as they stay in one page that the fast path knows.
    pub(crate) fn bulk_fill<W: Width>(&mut self, to: u64, value: W, most: u64) -> u64 {
        let e = self.mmu.entry(to);
        if e.write != to & !0xfff {
            return 0;
        }
        let n = most.min((4096 - (to & 0xfff)) / W::BYTES as u64);
        let target = (to as usize).wrapping_add(e.addend) as *mut W;
        for i in 0..n as usize {
            // SAFETY: as in `bulk_copy`; element `i` lies inside the page.
            unsafe { target.add(i).write_unaligned(value) };
        }
        n
    }

    /// Faults now if a store could not be made.
    pub fn check_write(&mut self, lin: u64, bytes: usize, seg: u8, _io: &mut dyn CpuIo) -> R {
        self.check_address(lin, bytes, seg, true)?;
        self.check_place(lin, bytes, Want::Write)
    }

    /// Faults now if a page of an access can't be reached.
    pub(crate) fn check_place(&mut self, lin: u64, bytes: usize, want: Want) -> R {
        let mode = self.plain_access_mode();
        self.place(lin, want, mode)?;
        let head = piece(lin, bytes);
        if head < bytes {
            let next = self.wrap_linear(lin.wrapping_add(head as u64));
            self.place(next, want, mode)?;
        }
        Ok(())
    }

    /// Faults now if `bytes` bytes of the op's memory operand, from the one at `from` on, can't be reached: for operands whose
    /// parts silicon looks at in an order of its own. The address of each part is wrapped to the address size.
    pub fn probe(&mut self, op: &Op, from: u64, bytes: usize, write: bool) -> R {
        let part = Op { disp: op.disp.wrapping_add(from), ..*op };
        let lin = self.linear(&part, bytes as u64, write)?;
        self.check_address(lin, bytes, op.seg, write)?;
        self.check_place(lin, bytes, if write { Want::Write } else { Want::Read })
    }

    /// Canonical form, alignment, data breakpoints: all that precedes paging.
    fn check_address(&mut self, lin: u64, bytes: usize, seg: u8, write: bool) -> R {
        self.check_range(lin, bytes, seg)?;
        if self.mmu.mode == CHECKED {
            if self.checks_alignment() && !lin.is_multiple_of(natural_alignment(bytes)) {
                return self.fail(Exception::with_error(Vector::Alignment, 0));
            }
            self.data_breakpoint(lin, bytes, write);
        }
        Ok(())
    }

    /// #SS or #GP unless all of an access has addresses that are canonical, or inside the segment.
    pub(crate) fn check_range(&mut self, lin: u64, bytes: usize, seg: u8) -> R {
        let end = lin.wrapping_add(bytes as u64 - 1);
        let base = self.seg_base[seg as usize % SEGS];
        let outside = if self.is_64() {
            // Not only the sum, also what is added to the base of FS or GS must be canonical: Zen 4 looks at it.
            !canonical(lin) || !canonical(end) || base != 0 && !canonical(lin.wrapping_sub(base))
        } else {
            // Flat segments were not checked before, but they do end at 4 GiB.
            end > 0xffff_ffff && base == 0
        };
        if outside {
            let vector = if seg as usize == SS { Vector::Stack } else { Vector::GeneralProtection };
            return self.fail(Exception::with_error(vector, 0));
        }
        Ok(())
    }

    /// Outside 64-bit mode linear addresses have 32 bits.
    fn wrap_linear(&self, lin: u64) -> u64 {
        if self.is_64() { lin } else { lin & 0xffff_ffff }
    }

    /// An implicit supervisor load: descriptor tables, TSS, the stack of a more privileged level.
    pub fn read_system<T: Mem>(&mut self, lin: u64, io: &mut dyn CpuIo) -> R<T> {
        let mut bytes = [0; WIDEST];
        let mode = self.system_access_mode();
        self.check_system_address(lin, T::SIZE)?;
        self.read_bytes_as(lin, &mut bytes[..T::SIZE], mode, io)?;
        Ok(T::from_slice(&bytes))
    }

    /// An implicit supervisor store.
    pub fn write_system<T: Mem>(&mut self, lin: u64, value: T, io: &mut dyn CpuIo) -> R {
        let mode = self.system_access_mode();
        self.check_system_address(lin, T::SIZE)?;
        self.write_bytes_as(lin, &value.to_bytes()[..T::SIZE], mode, io)
    }

    fn check_system_address(&mut self, lin: u64, bytes: usize) -> R {
        if self.long_mode() && !(canonical(lin) && canonical(lin.wrapping_add(bytes as u64 - 1))) {
            return self.general_protection(0);
        }
        Ok(())
    }

    /// Mask of the stack pointer.
    #[inline(always)]
    pub fn stack_mask(&self) -> u64 {
        match self.mode.stack_bits {
            64 => u64::MAX,
            32 => 0xffff_ffff,
            _ => 0xffff,
        }
    }

    /// Sets RSP, ESP or SP, as the stack's size wants.
    #[inline(always)]
    pub fn set_stack_pointer(&mut self, value: u64) {
        let mask = self.stack_mask();
        let rsp = &mut self.regs[4];
        // A write to ESP clears the upper half, one to SP keeps the rest.
        *rsp = if mask == 0xffff { *rsp & !0xffff | value & 0xffff } else { value & mask };
    }

    /// The linear address of a stack access of `bytes` bytes at an offset in SS.
    #[inline(always)]
    pub fn stack_linear(&mut self, offset: u64, bytes: u64, write: bool) -> R<u64> {
        if self.mode.flat { Ok(offset) } else { self.checked_linear(SS as u8, offset, bytes, write) }
    }

    /// Pushes a value. Eight bytes are pushed in 64-bit mode only, where the stack is flat.
    #[inline(always)]
    pub fn push<W: Width + Mem>(&mut self, value: W, io: &mut dyn CpuIo) -> R {
        if W::BITS == 64 {
            let sp = self.regs[4].wrapping_sub(8);
            self.write(sp, SS as u8, value, io)?;
            self.regs[4] = sp;
            return Ok(());
        }
        let sp = self.regs[4].wrapping_sub(W::BYTES as u64) & self.stack_mask();
        let lin = self.stack_linear(sp, W::BYTES as u64, true)?;
        self.write(lin, SS as u8, value, io)?;
        self.set_stack_pointer(sp);
        Ok(())
    }

    /// Pops a value. Eight bytes are popped in 64-bit mode only, where the stack is flat.
    #[inline(always)]
    pub fn pop<W: Width + Mem>(&mut self, io: &mut dyn CpuIo) -> R<W> {
        if W::BITS == 64 {
            let value = self.read(self.regs[4], SS as u8, io)?;
            self.regs[4] = self.regs[4].wrapping_add(8);
            return Ok(value);
        }
        let sp = self.regs[4] & self.stack_mask();
        let lin = self.stack_linear(sp, W::BYTES as u64, false)?;
        let value = self.read(lin, SS as u8, io)?;
        self.set_stack_pointer(sp.wrapping_add(W::BYTES as u64));
        Ok(value)
    }

    /// Goes to an address: checks that it is canonical, or inside CS.
    #[inline(always)]
    pub fn jump(&mut self, rip: u64) -> R {
        let ok = if self.is_64() {
            canonical(rip)
        } else {
            self.mode.flat || rip <= u64::from(self.s.seg[CS].limit)
        };
        if !ok {
            return self.general_protection(0);
        }
        self.rip = rip;
        Ok(())
    }
}

/// Whether an address is its own sign extension from bit 47.
#[inline(always)]
pub fn canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// What alignment checking wants of an operand of `bytes` bytes: its size, for those of x87 the next lower one of 2, 4 and 8
/// (SDM 3A table 6-7; APM 2 8.2.18).
fn natural_alignment(bytes: usize) -> u64 {
    match bytes {
        14 | 94 => 2,
        28 | 108 => 4,
        16.. => 16,
        _ => bytes.min(8).next_power_of_two() as u64,
    }
}

/// How many of `len` bytes lie in the page of `lin`.
fn piece(lin: u64, len: usize) -> usize {
    len.min(4096 - (lin as usize & 0xfff))
}

/// The largest bus access at an address: 8, 4, 2 or 1 bytes, naturally aligned.
fn bus_size(address: u64, len: usize) -> usize {
    [8, 4, 2].into_iter().find(|n| len >= *n && address.is_multiple_of(*n as u64)).unwrap_or(1)
}
