//! One counter of the 8254, as a function of its CLK ticks.
//!
//! Not responsible for: which ticks those are, ports, the wire behind OUT (`pit`).
//!
//! Nothing here runs: a counter keeps the tick at which its counting element was loaded, and works out from that
//! what it holds, where OUT is and when OUT changes next. So nothing drifts, however seldom it is looked at.
//! Headings in brackets are those of the Intel 8254 datasheet (231164).

use serde::{Deserialize, Serialize};

/// A counter: control, count register, output latches and counting element [Counters 0, 1, 2].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Counter {
    mode: u8,
    bcd: bool,
    access: Access,
    gate: bool,
    /// First byte of a two-byte count.
    low_byte: Option<u8>,
    /// The next read of a two-byte count gives its high byte.
    high_next: bool,
    /// Count latch; what is left of it to read.
    latched: Option<Latch>,
    latched_status: Option<u8>,
    /// Count register: what the next load takes. Empty from the control word until a count is written.
    count: Option<u32>,
    /// Null count [Read-Back Command]: the count register holds what the counting element has not taken yet.
    fresh: bool,
    element: Element,
}

/// RW1 and RW0 of the control word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Access {
    Low,
    High,
    LowHigh,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Latch {
    Both(u16),
    Last(u8),
}

/// The counting element and OUT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Element {
    /// Not counting: never loaded, or held by GATE.
    Held {
        value: u32,
        out: bool,
        /// The end of the count still has to move OUT (modes 0 and 4).
        armed: bool,
    },
    Counting {
        /// What was loaded.
        n: u32,
        /// The tick of the load (mode 3: of this half cycle). The CLK after a write or trigger loads, so it can
        /// be one tick ahead.
        since: u64,
        /// Value and OUT until that tick.
        before: (u32, bool),
        /// Modes 0, 1, 4, 5: the end of the count still has to move OUT. Mode 3: this is the high half cycle.
        armed: bool,
    },
}

use Element::{Counting, Held};

impl Counter {
    /// A counter before its first control word; the datasheet leaves it undefined [Programming the 8254].
    pub(super) const fn new(gate: bool) -> Self {
        Self {
            mode: 0,
            bcd: false,
            access: Access::LowHigh,
            gate,
            low_byte: None,
            high_next: false,
            latched: None,
            latched_status: None,
            count: None,
            fresh: true,
            element: Held { value: 0, out: false, armed: false },
        }
    }

    /// Whether a restored counter is one that this code can have saved.
    pub(super) fn is_sound(&self) -> bool {
        let least = if matches!(self.mode, 2 | 3) { 2 } else { 1 };
        let fits = |n: u32| (least..=self.modulus()).contains(&n);
        let element = match self.element {
            Held { value, .. } => value <= self.modulus(),
            Counting { n, since, before, .. } => fits(n) && since < 1 << 62 && before.0 <= self.modulus(),
        };
        self.mode <= 5 && self.count.is_none_or(fits) && element
    }

    /// A control word for this counter [Control Word Format].
    pub(super) fn control(&mut self, t: u64, word: u8) {
        let value = self.value(t);
        self.access = match word >> 4 & 3 {
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowHigh,
        };
        self.mode = match word >> 1 & 7 {
            mode @ 0..=5 => mode,
            mode => mode - 4, // 6 and 7 are 2 and 3: M2 is a don't-care there
        };
        self.bcd = word & 1 != 0;
        (self.low_byte, self.high_next) = (None, false);
        (self.latched, self.latched_status) = (None, None);
        (self.count, self.fresh) = (None, true);
        self.element = Held { value: value.min(self.modulus()), out: self.mode != 0, armed: false };
    }

    /// A byte written to the counter's port.
    pub(super) fn write(&mut self, t: u64, byte: u8) {
        let raw = match (self.access, self.low_byte.take()) {
            (Access::Low, _) => u16::from(byte),
            (Access::High, _) => u16::from(byte) << 8,
            (Access::LowHigh, Some(low)) => u16::from_le_bytes([low, byte]),
            (Access::LowHigh, None) => {
                self.low_byte = Some(byte);
                if self.mode == 0 {
                    // The first byte stops the counting and OUT goes low at once [Mode 0].
                    self.element = Held { value: self.value(t), out: false, armed: false };
                    self.count = None;
                }
                return;
            }
        };
        self.write_count(t, raw);
    }

    fn write_count(&mut self, t: u64, raw: u16) {
        self.advance(t);
        let n = if self.bcd {
            (0..4).rev().fold(0, |n, digit| n * 10 + u32::from(raw >> (4 * digit) & 15)) % 10_000
        } else {
            u32::from(raw)
        };
        let n = match (n, self.mode) {
            (0, _) => self.modulus(),
            (1, 2 | 3) => 2, // a count of 1 is illegal here [Mode 2, Mode 3]: the shortest legal cycle instead
            _ => n,
        };
        (self.count, self.fresh) = (Some(n), true);
        match (self.mode, &mut self.element) {
            (0 | 4, _) if self.gate => self.load(t, n),
            (0 | 4, element) => {
                // Loaded by the next CLK, counted from when GATE goes high [Mode 0].
                *element = Held { value: n, out: self.mode == 4, armed: true };
                self.fresh = false;
            }
            (2 | 3, Counting { n: current, since, .. }) if *since > t => {
                *current = n;
                self.fresh = false;
            }
            (2 | 3, Held { .. }) if self.gate => self.load(t, n),
            // Modes 2 and 3 take it at the end of the (half) cycle, 1 and 5 at the next trigger.
            _ => {}
        }
    }

    /// Loads the counting element at the next CLK.
    fn load(&mut self, t: u64, n: u32) {
        let out = match self.mode {
            0 => false,
            1 => self.out(t),
            _ => true,
        };
        self.element = Counting { n, since: t + 1, before: (self.value(t), out), armed: true };
        self.fresh = false;
    }

    /// GATE changes [Gate Pin Operations Summary].
    pub(super) fn set_gate(&mut self, t: u64, gate: bool) {
        if gate == self.gate {
            return;
        }
        self.advance(t);
        self.gate = gate;
        match (self.mode, gate, self.count) {
            (0 | 4, true, Some(_)) => {
                if let Held { value, out, armed } = self.element {
                    let n = if value == 0 { self.modulus() } else { value };
                    self.element = Counting { n, since: t, before: (value, out), armed };
                }
            }
            (0 | 4, false, _) => {
                if let Counting { n, since, armed, .. } = self.element {
                    let ended = t >= since + u64::from(n);
                    let value = if t < since { n } else { self.value(t) };
                    self.element = Held { value, out: self.out(t), armed: armed && !ended };
                }
            }
            (1 | 2 | 3 | 5, true, Some(n)) => self.load(t, n),
            (2 | 3, false, _) => {
                self.element = Held { value: self.value(t), out: true, armed: false };
            }
            _ => {}
        }
    }

    /// Counts in a whole range: binary or BCD [Operation Common to All Modes].
    const fn modulus(&self) -> u32 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    /// Ticks in a half cycle of mode 3: an odd count is high for one more [Mode 3].
    const fn half(n: u32, high: bool) -> u64 {
        (if high { n.div_ceil(2) } else { n / 2 }) as u64
    }

    /// Brings the start of the cycle up to tick `t` (modes 2 and 3), taking a fresh count on where a cycle ended.
    fn advance(&mut self, t: u64) {
        let Counting { n, since, armed, .. } = &mut self.element else { return };
        if *since > t {
            return;
        }
        match self.mode {
            2 => {
                if let (true, Some(count), true) = (self.fresh, self.count, t - *since >= u64::from(*n)) {
                    *since += u64::from(*n);
                    *n = count;
                    self.fresh = false;
                }
                *since += (t - *since) / u64::from(*n) * u64::from(*n);
            }
            3 => {
                while t - *since >= Self::half(*n, *armed) {
                    *since += Self::half(*n, *armed);
                    *armed = !*armed;
                    if let (true, Some(count)) = (self.fresh, self.count) {
                        *n = count;
                        self.fresh = false;
                    }
                    *since += (t - *since) / u64::from(*n) * u64::from(*n);
                }
            }
            _ => {}
        }
    }

    /// The counting element's value, 0 to the modulus.
    fn value(&mut self, t: u64) -> u32 {
        self.advance(t);
        match self.element {
            Held { value, .. } => value,
            Counting { since, before, .. } if t < since => before.0,
            Counting { n, since, .. } => match (self.mode, t - since) {
                (2, e) => n - e as u32,
                (3, e) => (n & !1) - 2 * e as u32,
                (_, e) => {
                    let m = u64::from(self.modulus());
                    ((u64::from(n) + m - e % m) % m) as u32
                }
            },
        }
    }

    /// OUT at tick `t`.
    pub(super) fn out(&mut self, t: u64) -> bool {
        self.advance(t);
        match self.element {
            Held { out, .. } => out,
            Counting { since, before, .. } if t < since => before.1,
            Counting { n, since, armed, .. } => {
                let elapsed = t - since;
                match self.mode {
                    0 | 1 => !armed || elapsed >= u64::from(n),
                    2 => elapsed != u64::from(n) - 1,
                    3 => armed,
                    _ => !armed || elapsed != u64::from(n),
                }
            }
        }
    }

    /// The first tick after `t` at which OUT changes, if it does by itself.
    pub(super) fn next_edge(&mut self, t: u64) -> Option<u64> {
        self.advance(t);
        let Counting { n, since, before, armed } = self.element else { return None };
        let n = u64::from(n);
        let edges = match self.mode {
            0 if armed => [since + n, 0],
            1 if armed => [if before.1 { since } else { 0 }, since + n],
            2 => [since + n - 1, since + n],
            3 => [since + Self::half(n as u32, armed), 0],
            4 | 5 if armed => [since + n, since + n + 1],
            _ => return None,
        };
        edges.into_iter().find(|edge| *edge > t)
    }

    /// Latches the count [Counter Latch Command]; a count that is latched already stays.
    pub(super) fn latch(&mut self, t: u64) {
        if self.latched.is_none() {
            let value = self.shown(t);
            let [low, high] = value.to_le_bytes();
            self.latched = Some(match self.access {
                Access::Low => Latch::Last(low),
                Access::High => Latch::Last(high),
                Access::LowHigh => Latch::Both(value),
            });
        }
    }

    /// Latches the status byte [Read-Back Command].
    pub(super) fn latch_status(&mut self, t: u64) {
        if self.latched_status.is_none() {
            let access = match self.access {
                Access::Low => 1,
                Access::High => 2,
                Access::LowHigh => 3,
            };
            let loading = matches!(self.element, Counting { since, .. } if t < since);
            let out = self.out(t);
            let null = self.fresh || loading;
            self.latched_status = Some(
                u8::from(out) << 7 | u8::from(null) << 6 | access << 4 | self.mode << 1 | u8::from(self.bcd),
            );
        }
    }

    /// The value as a read shows it: 16 bits, or four digits.
    fn shown(&mut self, t: u64) -> u16 {
        let value = self.value(t) % self.modulus();
        if self.bcd {
            (0..4).fold(0, |bcd, digit| bcd | ((value / 10u32.pow(digit) % 10) as u16) << (4 * digit))
        } else {
            value as u16
        }
    }

    /// A byte read from the counter's port: the status, then the latched count, then the count as it runs.
    pub(super) fn read(&mut self, t: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        match self.latched {
            Some(Latch::Both(value)) => {
                let [low, high] = value.to_le_bytes();
                self.latched = Some(Latch::Last(high));
                low
            }
            Some(Latch::Last(byte)) => {
                self.latched = None;
                byte
            }
            None => {
                let [low, high] = self.shown(t).to_le_bytes();
                match self.access {
                    Access::Low => low,
                    Access::High => high,
                    Access::LowHigh => {
                        self.high_next = !self.high_next;
                        if self.high_next { low } else { high }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OUT from tick 0 on, as a string of H and L, for `len` ticks.
    fn wave(c: &Counter, from: u64, len: u64) -> String {
        let mut c = c.clone();
        (from..from + len).map(|t| if c.out(t) { 'H' } else { 'L' }).collect()
    }

    fn programmed(word: u8, n: u8, gate: bool) -> Counter {
        let mut c = Counter::new(gate);
        c.control(0, word);
        c.write(0, n);
        c
    }

    /// The first wave form of each mode in the datasheet's figures 15 to 20: control word and LSB written before
    /// tick 1, which loads.
    #[test]
    fn wave_forms_of_the_datasheet() {
        // Mode 0, N = 4: high N + 1 pulses after the write.
        let mut c = programmed(0x10, 4, true);
        assert_eq!(wave(&c, 0, 8), "LLLLLHHH");
        assert_eq!((1..7).map(|t| c.shown(t)).collect::<Vec<_>>(), [4, 3, 2, 1, 0, 0xffff]);
        // Mode 1, N = 3: low for N from the pulse after the trigger; a trigger in between starts anew.
        let mut c = programmed(0x12, 3, false);
        assert_eq!(wave(&c, 0, 3), "HHH");
        c.set_gate(3, true);
        assert_eq!(wave(&c, 3, 6), "HLLLHH");
        c.set_gate(8, false);
        c.set_gate(10, true);
        c.set_gate(12, false);
        assert_eq!(wave(&c, 11, 2), "LL");
        c.set_gate(12, true);
        assert_eq!(wave(&c, 12, 5), "LLLLH");
        // Mode 2, N = 3: low while the count is 1.
        let mut c = programmed(0x14, 3, true);
        assert_eq!(wave(&c, 0, 10), "HHHLHHLHHL");
        assert_eq!((1..7).map(|t| c.shown(t)).collect::<Vec<_>>(), [3, 2, 1, 3, 2, 1]);
        // Mode 3, N = 4 and N = 5.
        let mut c = programmed(0x16, 4, true);
        assert_eq!(wave(&c, 1, 10), "HHLLHHLLHH");
        assert_eq!((1..9).map(|t| c.shown(t)).collect::<Vec<_>>(), [4, 2, 4, 2, 4, 2, 4, 2]);
        let mut c = programmed(0x16, 5, true);
        assert_eq!(wave(&c, 1, 10), "HHHLLHHHLL");
        assert_eq!((1..11).map(|t| c.shown(t)).collect::<Vec<_>>(), [4, 2, 0, 4, 2, 4, 2, 0, 4, 2]);
        // Mode 4, N = 3: a strobe of one pulse, N + 1 after the write, once.
        let c = programmed(0x18, 3, true);
        assert_eq!(wave(&c, 0, 8), "HHHHLHHH");
        assert_eq!(wave(&c, 65_536, 8), "HHHHHHHH");
        // Mode 5, N = 3: the same from the trigger on.
        let mut c = programmed(0x1a, 3, false);
        c.set_gate(2, true);
        assert_eq!(wave(&c, 2, 8), "HHHHLHHH");
    }

    #[test]
    fn gate_holds_and_resumes_mode_0() {
        let mut c = programmed(0x10, 3, true);
        c.set_gate(2, false);
        assert_eq!((c.shown(2), c.shown(9)), (2, 2));
        c.set_gate(10, true);
        assert_eq!(wave(&c, 10, 4), "LLHH");
        // Written while GATE is low: N pulses from GATE on, for the load is over (figure 15, third).
        let mut c = programmed(0x10, 3, false);
        c.set_gate(5, true);
        assert_eq!(wave(&c, 5, 5), "LLLHH");
        // And a pause after the end leaves OUT high.
        c.set_gate(20, false);
        c.set_gate(30, true);
        assert_eq!(wave(&c, 20, 20), "H".repeat(20));
    }

    #[test]
    fn gate_restarts_modes_2_and_3() {
        for (word, restarted) in [(0x14, "HHHHLHHHL"), (0x16, "HHHLLHHLL")] {
            let mut c = programmed(word, 4, true);
            c.set_gate(4, false);
            assert_eq!(wave(&c, 4, 6), "HHHHHH");
            c.set_gate(10, true);
            assert_eq!(wave(&c, 10, 9), restarted, "control word {word:#x}");
        }
    }

    #[test]
    fn a_new_count_waits_for_the_end_of_the_cycle_or_half() {
        let mut c = programmed(0x14, 4, true);
        c.write(2, 2);
        assert_eq!(wave(&c, 1, 8), "HHHLHLHL");
        let mut c = programmed(0x16, 8, true);
        c.write(2, 2);
        assert_eq!(wave(&c, 1, 8), "HHHHLHLH");
        let mut c = programmed(0x10, 9, true);
        c.write(5, 2);
        assert_eq!(wave(&c, 4, 6), "LLLLHH", "mode 0 starts over");
    }

    #[test]
    fn long_jumps_land_where_single_steps_do() {
        for word in [0x14, 0x16] {
            for n in [2, 3, 7, 200] {
                let mut stepped = programmed(word, n, true);
                let mut jumped = stepped.clone();
                let t = 1_000_003;
                for step in 0..=t {
                    stepped.advance(step);
                }
                assert_eq!((stepped.out(t), stepped.value(t)), (jumped.out(t), jumped.value(t)));
                assert_eq!(stepped, jumped);
            }
        }
    }

    #[test]
    fn next_edge_is_where_out_changes() {
        for word in [0x10, 0x12, 0x14, 0x16, 0x18, 0x1a] {
            for n in [2, 3, 4, 9] {
                let mut c = programmed(word, n, false);
                c.set_gate(3, true);
                let mut t = 3;
                while t < 60 {
                    let edge = c.clone().next_edge(t);
                    let seen = (t + 1..200).find(|s| c.clone().out(*s) != c.clone().out(t));
                    assert_eq!(edge, seen, "control {word:#x}, N = {n}, at {t}");
                    t += 1;
                }
            }
        }
    }

    #[test]
    fn zero_is_the_largest_count() {
        let mut c = Counter::new(true);
        c.control(0, 0x30);
        c.write(0, 0);
        c.write(0, 0);
        assert!(!c.out(65_536) && c.out(65_537));
        c.control(70_000, 0x31);
        c.write(70_000, 0);
        c.write(70_000, 0);
        assert!(!c.out(80_000) && c.out(80_001));
        assert_eq!(c.shown(70_002), 0x9999);
    }
}
