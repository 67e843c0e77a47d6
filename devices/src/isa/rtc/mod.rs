//! The MC146818 real-time clock with its CMOS RAM.
//!
//! Not responsible for: what firmware would have left in the RAM beyond memory sizes and equipment, the date at
//! power-on (the machine's specification), daylight saving.
//!
//! The clock is worked out from guest time where somebody looks; a timer is armed only for an enabled interrupt. The
//! update at a full second takes no time here (1984 us on the chip), but is announced by UIP as the chip does.
//! Headings in brackets are those of the Motorola MC146818A datasheet.

mod calendar;

use crate::wiring::IRQ8_RTC;
use calendar::{Fields, Format};
use gemel_machine::{Device, DeviceCx, Section, SectionError, VirtTime};
use serde::{Deserialize, Serialize};

const VERSION: u16 = 1;
/// The one timer: the next interrupt of those enabled.
const INTERRUPT: u8 = 0;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

const CRYSTAL_HZ: u64 = 32_768;
const SECOND_NS: u64 = 1_000_000_000;
/// UIP rises this long before the update (t_BUC) [Update Cycle]: who sees it clear has that long to read.
const ANNOUNCED_NS: u64 = 244_000;

const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
/// The century, as ACPI's FADT names it.
const CENTURY: u8 = 0x32;

/// A: update in progress.
const UIP: u8 = 1 << 7;
/// A: divider chain; with a 32768 Hz crystal only 010 runs.
const DIVIDER: u8 = 7 << 4;
const DIVIDER_RUNS: u8 = 2 << 4;

/// B: the guest sets the clock, no updates.
const SET: u8 = 1 << 7;
/// B and C: periodic interrupt.
const PERIODIC: u8 = 1 << 6;
/// B and C: alarm interrupt.
const ALARM: u8 = 1 << 5;
/// B and C: update-ended interrupt.
const UPDATE: u8 = 1 << 4;
/// B: square wave, on a pin that leads nowhere.
const SQUARE_WAVE: u8 = 1 << 3;
/// B: binary.
const BINARY: u8 = 1 << 2;
/// B: hours 0 to 23.
const DAY_HAS_24: u8 = 1 << 1;
/// C: any enabled flag is set.
const REQUEST: u8 = 1 << 7;
/// D: RAM and time are valid: the battery never ran down.
const VALID: u8 = 1 << 7;

/// The clock and its RAM.
pub struct Rtc {
    /// The register that the data port shows, and the NMI mask in bit 7, which masks nothing here.
    index: u8,
    ram: Vec<u8>,
    a: u8,
    b: u8,
    /// Flags of C as of `seen`.
    c: u8,
    /// Up to when events are in the flags.
    seen: VirtTime,
    time: Time,
    /// By how much the divider chain is ahead of guest time: 0 to a second, in ns.
    divider_ahead: u64,
    weekday_shift: u8,
}

/// What the time registers hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Time {
    /// Seconds since 1970, less the full seconds of the divider chain.
    Running(i64),
    /// Frozen registers, while SET is set or the divider is held.
    Frozen(Fields),
}

const RAM: usize = 128;
/// No date that registers can name is further from 1970 (in seconds).
const LONGEST: i64 = 1 << 40;

impl Rtc {
    /// Index and data port.
    pub const PORTS: std::ops::RangeInclusive<u16> = INDEX..=DATA;

    /// A clock that reads `rtc_base` (seconds since 1970, UTC) at time zero, on a board with `memory` bytes of RAM.
    pub fn new(rtc_base: u64, memory: u64) -> Self {
        Self {
            index: 0,
            ram: cmos(memory),
            a: DIVIDER_RUNS | 6, // 1024 Hz, as firmware leaves it
            b: DAY_HAS_24,
            c: 0,
            seen: VirtTime(0),
            time: Time::Running((rtc_base as i64).clamp(0, LONGEST)),
            divider_ahead: 0,
            weekday_shift: 0,
        }
    }

    fn format(&self) -> Format {
        Format { binary: self.b & BINARY != 0, day_has_24: self.b & DAY_HAS_24 != 0 }
    }

    const fn divider_runs(a: u8) -> bool {
        a & DIVIDER == DIVIDER_RUNS
    }

    /// Nanoseconds that the divider chain has run.
    const fn divider(&self, now: VirtTime) -> VirtTime {
        now.after(self.divider_ahead)
    }

    const fn full_seconds(&self, now: VirtTime) -> i64 {
        (self.divider(now).0 / SECOND_NS) as i64
    }

    /// Guest time at which the divider chain has run for a time.
    const fn when(&self, divider: VirtTime) -> VirtTime {
        VirtTime(divider.0.saturating_sub(self.divider_ahead))
    }

    /// Crystal ticks between two periodic interrupts [Periodic Interrupt Rate]; zero for none.
    const fn period(&self) -> u64 {
        match self.a & 15 {
            0 => 0,
            rate @ (1 | 2) => 1 << (rate + 6),
            rate => 1 << (rate - 1),
        }
    }

    fn fields(&self, now: VirtTime) -> Fields {
        match &self.time {
            Time::Running(base) => {
                calendar::fields(base + self.full_seconds(now), self.weekday_shift, self.format())
            }
            Time::Frozen(fields) => *fields,
        }
    }

    /// Writes a register of the time; a running clock goes on from what was written.
    fn set_field(&mut self, now: VirtTime, field: usize, value: u8) {
        let mut fields = self.fields(now);
        fields[field] = value;
        match self.time {
            Time::Running(_) => self.run_from(now, &fields),
            Time::Frozen(_) => self.time = Time::Frozen(fields),
        }
    }

    fn run_from(&mut self, now: VirtTime, fields: &Fields) {
        let (seconds, shift) = calendar::seconds(fields, self.format());
        self.time = Time::Running(seconds - self.full_seconds(now));
        self.weekday_shift = shift;
    }

    /// Writes A or B. SET and the divider decide whether the clock runs.
    fn set_control(&mut self, now: VirtTime, a: u8, b: u8) {
        let fields = self.fields(now);
        if Self::divider_runs(a) && !Self::divider_runs(self.a) {
            // The first update is half a second after the divider starts [Divider Stages].
            let phase = now.0 % SECOND_NS;
            self.divider_ahead = (SECOND_NS + SECOND_NS / 2 - phase) % SECOND_NS;
        }
        let was_frozen = matches!(self.time, Time::Frozen(_));
        (self.a, self.b) = (a, b);
        if b & SET != 0 || !Self::divider_runs(a) {
            self.time = Time::Frozen(fields);
        } else if was_frozen {
            // What was written under SET is read in the format that holds when SET ends.
            self.run_from(now, &fields);
        }
    }

    /// The next second, after the divider's second `from`, at which the alarm matches; within a day, if ever.
    fn next_alarm(&self, from: i64) -> Option<i64> {
        let Time::Running(base) = self.time else { return None };
        let format = self.format();
        let matches = |register: usize, value: u8| {
            let alarm = self.ram[register];
            alarm & 0xc0 == 0xc0 || alarm == value // the two high bits: any value matches [Alarm Bytes]
        };
        let reachable = (0..24).any(|hour| matches(5, format.encode_hour(hour)))
            && [1, 3].into_iter().all(|register| (0..60).any(|n| matches(register, format.encode(n))));
        if !reachable {
            return None;
        }
        let mut second = base + from + 1;
        let end = second + 86_400;
        // Each step passes the rest of an hour, of a minute, or a second: at most 24 + 60 + 60 of them.
        while second < end {
            let of_day = second.rem_euclid(86_400);
            if !matches(5, format.encode_hour((of_day / 3600) as u8)) {
                second += 3600 - of_day % 3600;
            } else if !matches(3, format.encode((of_day / 60 % 60) as u8)) {
                second += 60 - of_day % 60;
            } else if !matches(1, format.encode((of_day % 60) as u8)) {
                second += 1;
            } else {
                return Some(second - base);
            }
        }
        None
    }

    /// Brings the flags up to now.
    fn observe(&mut self, now: VirtTime) {
        let (then, until) = (self.divider(self.seen), self.divider(now));
        self.seen = now;
        if !Self::divider_runs(self.a) {
            return;
        }
        let period = self.period();
        if period != 0 && then.ticks(CRYSTAL_HZ) / period != until.ticks(CRYSTAL_HZ) / period {
            self.c |= PERIODIC;
        }
        let (then, until) = ((then.0 / SECOND_NS) as i64, (until.0 / SECOND_NS) as i64);
        if then != until && matches!(self.time, Time::Running(_)) {
            self.c |= UPDATE;
            if self.next_alarm(then).is_some_and(|at| at <= until) {
                self.c |= ALARM;
            }
        }
    }

    fn requests(&self) -> bool {
        self.c & self.b & (PERIODIC | ALARM | UPDATE) != 0
    }

    /// Puts IRQ 8 where it belongs and arms the next event that can change it.
    fn drive(&mut self, cx: &mut DeviceCx<'_>) {
        cx.wires.set(IRQ8_RTC, self.requests());
        let mut next = VirtTime::NEVER;
        if !self.requests() && Self::divider_runs(self.a) {
            let divider = self.divider(cx.now);
            let period = self.period();
            if self.b & PERIODIC != 0 && period != 0 {
                let ticks = (divider.ticks(CRYSTAL_HZ) / period + 1) * period;
                next = next.min(self.when(VirtTime::of_ticks(ticks, CRYSTAL_HZ)));
            }
            let second = (divider.0 / SECOND_NS) as i64;
            let running = matches!(self.time, Time::Running(_));
            let update = (self.b & UPDATE != 0 && running).then_some(second + 1);
            let alarm = if self.b & ALARM != 0 { self.next_alarm(second) } else { None };
            for at in [update, alarm].into_iter().flatten() {
                next = next.min(self.when(VirtTime((at as u64).saturating_mul(SECOND_NS))));
            }
        }
        cx.arm(INTERRUPT, next);
    }

    fn register_a(&self, now: VirtTime) -> u8 {
        let left = SECOND_NS - self.divider(now).0 % SECOND_NS;
        let announced = left <= ANNOUNCED_NS && matches!(self.time, Time::Running(_));
        self.a | if announced { UIP } else { 0 }
    }

    fn read(&mut self, cx: &mut DeviceCx<'_>) -> u8 {
        match self.index & 0x7f {
            REGISTER_A => self.register_a(cx.now),
            REGISTER_B => self.b,
            REGISTER_C => {
                self.observe(cx.now);
                let flags = self.c | if self.requests() { REQUEST } else { 0 };
                self.c = 0;
                self.drive(cx);
                flags
            }
            REGISTER_D => VALID,
            register => match time_field(register) {
                Some(field) => self.fields(cx.now)[field],
                None => self.ram[usize::from(register)],
            },
        }
    }

    fn write(&mut self, cx: &mut DeviceCx<'_>, value: u8) {
        self.observe(cx.now);
        match self.index & 0x7f {
            REGISTER_A => self.set_control(cx.now, value & !UIP, self.b),
            REGISTER_B => {
                // SET clears the update interrupt's enable [Register B].
                let value = if value & SET != 0 { value & !UPDATE } else { value };
                self.set_control(cx.now, self.a, value);
            }
            REGISTER_C | REGISTER_D => {}
            register => match time_field(register) {
                Some(field) => self.set_field(cx.now, field, value),
                None => self.ram[usize::from(register)] = value,
            },
        }
        self.drive(cx);
    }
}

/// Which field of the time a register is. The odd ones below 6 are the alarm's, kept in RAM.
const fn time_field(register: u8) -> Option<usize> {
    Some(match register {
        0 => calendar::SECOND,
        2 => calendar::MINUTE,
        4 => calendar::HOUR,
        6 => calendar::WEEKDAY,
        7 => calendar::DAY,
        8 => calendar::MONTH,
        9 => calendar::YEAR,
        CENTURY => calendar::CENTURY,
        _ => return None,
    })
}

/// CMOS RAM as PC firmware leaves it: equipment and memory sizes (places as in Ralf Brown's CMOS list).
fn cmos(memory: u64) -> Vec<u8> {
    let mut ram = vec![0; RAM];
    let mut word = |at: usize, value: u64| {
        ram[at] = value as u8;
        ram[at + 1] = (value >> 8) as u8;
    };
    let low_end = memory.min(gemel_machine::ram::LOW_END);
    word(0x14, 0x06); // an FPU and a PS/2 mouse, no diskette
    word(0x15, 640);
    let extended_kib = (low_end.saturating_sub(1 << 20) >> 10).min(0xffff);
    word(0x17, extended_kib);
    word(0x30, extended_kib);
    word(0x34, low_end.saturating_sub(16 << 20) >> 16);
    let high = memory.saturating_sub(gemel_machine::ram::LOW_END) >> 16;
    word(0x5b, high);
    ram[0x5d] = (high >> 16) as u8;
    ram
}

impl Device for Rtc {
    fn name(&self) -> &'static str {
        "rtc"
    }

    /// The RESET pin clears interrupt enables and flags; time, RAM and the rest run on their battery [RESET].
    fn reset(&mut self, cx: &mut DeviceCx<'_>) {
        self.observe(cx.now);
        self.index = 0;
        self.b &= !(PERIODIC | ALARM | UPDATE | SQUARE_WAVE);
        self.c = 0;
        self.drive(cx);
    }

    fn save(&self) -> Section {
        let Self { index, ram, a, b, c, seen, time, divider_ahead, weekday_shift } = self;
        Section::of(VERSION, &(index, ram, a, b, c, seen, time, divider_ahead, weekday_shift))
    }

    fn restore(&mut self, section: &Section) -> Result<(), SectionError> {
        type Saved = (u8, Vec<u8>, u8, u8, u8, VirtTime, Time, u64, u8);
        let (index, ram, a, b, c, seen, time, divider_ahead, weekday_shift): Saved =
            section.read(self.name(), VERSION)?;
        let runs = b & SET == 0 && Self::divider_runs(a);
        let time_is_sound = match time {
            Time::Running(base) => runs && (-LONGEST..=LONGEST).contains(&base),
            Time::Frozen(_) => !runs,
        };
        if ram.len() != RAM || !time_is_sound || divider_ahead >= SECOND_NS || weekday_shift > 6 {
            return Err(SectionError::Damaged { device: self.name() });
        }
        *self = Self { index, ram, a, b, c, seen, time, divider_ahead, weekday_shift };
        Ok(())
    }

    fn port_read(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8) -> u32 {
        match port {
            DATA => self.read(cx).into(),
            _ => u32::MAX, // the index cannot be read
        }
    }

    fn port_write(&mut self, cx: &mut DeviceCx<'_>, port: u16, _size: u8, value: u32) {
        match port {
            INDEX => self.index = value as u8,
            DATA => self.write(cx, value as u8),
            _ => {}
        }
    }

    fn on_timer(&mut self, cx: &mut DeviceCx<'_>, _index: u8) {
        self.observe(cx.now);
        self.drive(cx);
    }
}

#[cfg(test)]
mod tests;
