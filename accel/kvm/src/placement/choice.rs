//! Which way an aim is reached.
//!
//! Not responsible for: going there.

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
    /// There is no aim: the guest runs.
    Free,
    /// In single steps on the vCPU.
    Steps,
    /// By breakpoint on the vCPU.
    Breakpoint,
    /// The assistant interprets up to it.
    Assistant,
}

impl Means {
    /// Hits of one breakpoint before the assistant takes over. A kick comes once in a millisecond, which is up to 4 million instructions,
    /// so the assistant needs some 15 ms from the last exit to a landing; a hit costs two exits and a comparison, some 15 us on
    /// VT-x or AMD-V. So after a thousand hits as much is spent as the assistant takes for the whole way, and no choice made
    /// in advance would be better than twice as fast (the ski-rental argument).
    pub const HITS: u32 = 1_000;

    /// Steps made on the vCPU rather than in the assistant, to which a state goes and from which it comes back at the price of about
    /// this many.
    pub const STEPS: u64 = 16;

    /// The way to `aim`. `spent`: the breakpoint had its [`Means::HITS`] without reaching it.
    pub fn choose(self, aim: Aim, spent: bool) -> Choice {
        match aim {
            Aim::NONE => Choice::Free,
            Aim { steps, .. } if steps != u64::MAX => {
                if steps <= Self::STEPS && self.single_step && aim.rip.is_none() {
                    Choice::Steps
                } else {
                    Choice::Assistant
                }
            }
            // Getting off the breakpoint takes a step.
            Aim { .. } if self.breakpoints && self.single_step && !spent => Choice::Breakpoint,
            Aim { .. } => Choice::Assistant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breakpoint_is_used_only_where_it_holds_and_only_so_often() {
        let all = Means { single_step: true, breakpoints: true };
        let at = Aim { rip: Some(0x1000), ..Aim::NONE };
        assert_eq!(all.choose(at, false), Choice::Breakpoint);
        assert_eq!(all.choose(at, true), Choice::Assistant);
        assert_eq!(Means { breakpoints: false, ..all }.choose(at, false), Choice::Assistant);
        assert_eq!(Means { single_step: false, ..all }.choose(at, false), Choice::Assistant);
    }

    #[test]
    fn few_steps_are_made_on_the_vcpu_and_many_interpreted() {
        let all = Means { single_step: true, breakpoints: true };
        assert_eq!(all.choose(Aim::NONE, false), Choice::Free);
        assert_eq!(all.choose(Aim::STEP, false), Choice::Steps);
        assert_eq!(all.choose(Aim { steps: 1 << 20, ..Aim::NONE }, false), Choice::Assistant);
        assert_eq!(Means { single_step: false, ..all }.choose(Aim::STEP, false), Choice::Assistant);
    }
}
