//! Which way an aim is reached.
//!
//! Not responsible for: going there.

use super::ByBreakpoint;
use gemel_machine::Aim;

/// What this host's KVM does exactly, at every privilege level that the guest can come to. A breakpoint that holds in ring 0 and is passed
/// over in ring 3 is worse than none: the run would be called another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Means {
    /// `KVM_GUESTDBG_SINGLESTEP` comes back after each instruction and each REP iteration.
    pub single_step: bool,
    /// `KVM_GUESTDBG_USE_HW_BP` comes back before the instruction at an address.
    pub breakpoints: bool,
}

/// How an aim is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    /// By breakpoint on the vCPU.
    Breakpoint,
    /// In single steps on the vCPU. For tests: microseconds for each.
    Steps,
    /// The assistant interprets up to it.
    Assistant,
}

impl Choice {
    /// All of them, in order.
    pub const ALL: &'static [Self] = &[Self::Breakpoint, Self::Steps, Self::Assistant];

    /// A word or two for a table.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Breakpoint => "by breakpoint",
            Self::Steps => "in steps",
            Self::Assistant => "interpreted",
        }
    }
}

impl Means {
    /// Hits of one breakpoint before the assistant takes over. A kick comes every two milliseconds, which is up to 8 million instructions,
    /// so the assistant needs some 30 ms from the last exit to a landing; a hit costs two exits, a step of the assistant's and a
    /// comparison, some 30 us on VT-x or AMD-V. So after a thousand hits as much is spent as the assistant takes for the whole way, and no
    /// choice made in advance would be better than twice as fast (the ski-rental argument).
    pub const HITS: u32 = 1_000;

    /// The way to `aim`. What is counted in steps only the assistant counts.
    pub const fn choose(self, aim: Aim) -> Choice {
        if aim.rip.is_some() && self.breakpoints { Choice::Breakpoint } else { Choice::Assistant }
    }
}

impl Default for ByBreakpoint {
    fn default() -> Self {
        Self::new(Means::HITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breakpoint_is_used_only_where_it_holds_and_only_for_an_address() {
        let (all, none) =
            (Means { single_step: true, breakpoints: true }, Means { single_step: true, breakpoints: false });
        let at = Aim { rip: Some(0x1000), ..Aim::NONE };
        assert_eq!(all.choose(at), Choice::Breakpoint);
        assert_eq!(all.choose(Aim { steps: 1 << 20, ..at }), Choice::Breakpoint);
        assert_eq!(none.choose(at), Choice::Assistant);
        assert_eq!(all.choose(Aim::STEP), Choice::Assistant);
    }
}
