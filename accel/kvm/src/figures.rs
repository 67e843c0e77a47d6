//! What a run cost: exits by kind, assists by cause, kicks.
//!
//! Not responsible for: showing them (the command line does).

use crate::placement::Choice;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($(#[$kind_doc:meta])* $kind:ident $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $name {
            $($(#[$kind_doc])* $kind,)*
        }

        impl $name {
            /// Every kind, in order.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// A word or two for a table.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$kind => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// Why KVM left the guest.
    Leaving {
        /// IN or INS.
        PortRead "port reads",
        /// OUT or OUTS.
        PortWrite "port writes",
        /// A load from what is not RAM.
        MmioRead "MMIO reads",
        /// A store to what is not RAM.
        MmioWrite "MMIO writes",
        /// RDMSR or WRMSR of a register that the hardware does not hold.
        Msr "MSRs",
        /// HLT.
        Halt "halts",
        /// An interrupt can be taken now.
        Window "interrupt windows",
        /// An instruction that KVM cannot emulate.
        CannotEmulate "not emulated",
        /// A single step or a breakpoint.
        Debug "debug stops",
        /// A triple fault, or a way into ring 0 where that is closed.
        Shutdown "shutdowns",
        /// A signal.
        Kick "kicks",
        /// Something else.
        Other "others",
    }
}

kinds! {
    /// Why the assistant executed something.
    Assist {
        /// KVM could not emulate an instruction.
        CannotEmulate "not emulated",
        /// String input, or an access of more than one piece.
        Compound "compound accesses",
        /// An MSR that the hardware does not hold.
        Msr "MSRs",
        /// An interrupt waits, and KVM would not say exactly when it can be taken.
        Window "interrupt windows",
        /// An interrupt or NMI that had to be delivered before a stop.
        Delivery "deliveries",
        /// Code of a mode that this KVM does not run on the CPU.
        Mode "modes",
        /// Ring 3 raised an exception or a system call, and ring 0 is not run by this KVM.
        Exception "ways into ring 0",
        /// A boundary that was aimed at.
        Aim "aims",
    }
}

/// Counters of one engine. They only rise.
#[derive(Debug, Default)]
pub struct Figures {
    leavings: [AtomicU64; Leaving::ALL.len()],
    assists: [AtomicU64; Assist::ALL.len()],
    placements: [AtomicU64; Choice::ALL.len()],
    interrupts: AtomicU64,
    kicks: AtomicU64,
    moves: AtomicU64,
    unplaced: AtomicU64,
}

fn add(cell: &AtomicU64) {
    cell.fetch_add(1, Relaxed);
}

impl Figures {
    pub(crate) fn left(&self, kind: Leaving) {
        add(&self.leavings[kind as usize]);
    }
    pub(crate) fn assisted(&self, cause: Assist) {
        add(&self.assists[cause as usize]);
    }
    pub(crate) fn placed(&self, way: Choice) {
        add(&self.placements[way as usize]);
    }
    pub(crate) fn injected(&self) {
        add(&self.interrupts);
    }
    pub(crate) fn kicked(&self) {
        add(&self.kicks);
    }
    pub(crate) fn moved(&self) {
        add(&self.moves);
    }
    pub(crate) fn not_placed(&self) {
        add(&self.unplaced);
    }

    /// How often KVM left the guest for this reason.
    pub fn leavings(&self, kind: Leaving) -> u64 {
        self.leavings[kind as usize].load(Relaxed)
    }

    /// How often the assistant was called for this cause.
    pub fn assists(&self, cause: Assist) -> u64 {
        self.assists[cause as usize].load(Relaxed)
    }

    /// How often a run to a boundary that was aimed at ended on this way.
    pub fn placements(&self, way: Choice) -> u64 {
        self.placements[way as usize].load(Relaxed)
    }

    /// Exits of every kind.
    pub fn all_leavings(&self) -> u64 {
        Leaving::ALL.iter().map(|kind| self.leavings(*kind)).sum()
    }

    /// Assists for every cause.
    pub fn all_assists(&self) -> u64 {
        Assist::ALL.iter().map(|cause| self.assists(*cause)).sum()
    }

    /// Interrupts that KVM delivered.
    pub fn interrupts(&self) -> u64 {
        self.interrupts.load(Relaxed)
    }

    /// How often the engine came back by itself between two exits.
    pub fn kicks(&self) -> u64 {
        self.kicks.load(Relaxed)
    }

    /// How often the whole state went from KVM to the assistant, or back.
    pub fn moves(&self) -> u64 {
        self.moves.load(Relaxed)
    }

    /// Accesses whose instruction could not be found again after KVM had gone past it: their RIP is that of the next one.
    pub fn unplaced(&self) -> u64 {
        self.unplaced.load(Relaxed)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} exits (", self.all_leavings())?;
        let exits = Leaving::ALL.iter().map(|kind| (self.leavings(*kind), kind.text()));
        list(f, exits)?;
        write!(f, "), {} assists (", self.all_assists())?;
        let assists = Assist::ALL.iter().map(|cause| (self.assists(*cause), cause.text()));
        list(f, assists)?;
        write!(f, "), {} interrupts, {} kicks", self.interrupts(), self.kicks())?;
        if Choice::ALL.iter().any(|way| self.placements(*way) != 0) {
            write!(f, ", aims: ")?;
            list(f, Choice::ALL.iter().map(|way| (self.placements(*way), way.text())))?;
        }
        match self.unplaced() {
            0 => Ok(()),
            n => write!(f, ", {n} accesses not placed"),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, counts: impl Iterator<Item = (u64, &'static str)>) -> fmt::Result {
    let mut first = true;
    for (count, text) in counts.filter(|(count, _)| *count != 0) {
        write!(f, "{}{count} {text}", if first { "" } else { ", " })?;
        first = false;
    }
    if first { write!(f, "none") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_named_and_the_rest_is_not() {
        let figures = Figures::default();
        figures.left(Leaving::PortRead);
        figures.left(Leaving::Halt);
        figures.left(Leaving::Halt);
        figures.assisted(Assist::Msr);
        assert_eq!(
            figures.to_string(),
            "3 exits (1 port reads, 2 halts), 1 assists (1 MSRs), 0 interrupts, 0 kicks"
        );
    }
}
