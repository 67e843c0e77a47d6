//! How this host's KVM is used, by what was found out about it.
//!
//! Not responsible for: finding it out (the passport's probes), leaks that nothing here can close.

use crate::passport::{Answers, DEVICE, Mode, Stop, ask};
use crate::placement::Means;
use std::path::Path;
use std::sync::OnceLock;

/// Which code KVM runs on the CPU itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Native {
    /// All of it.
    All,
    /// 64-bit code of ring 3 only. The rest goes through the kernel's instruction emulator, slowly and not completely.
    User64,
}

impl Native {
    /// The modes whose code is given to KVM.
    pub const fn modes(self) -> &'static [Mode] {
        match self {
            Self::All => &Mode::ALL,
            Self::User64 => &[Mode::LongRing3],
        }
    }
}

/// How a host's KVM is to be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quirks {
    /// What is run by KVM at all; the assistant executes the rest.
    pub native: Native,
    /// KVM leaves at the first boundary at which an interrupt can be taken, and not some time after it.
    pub exact_window: bool,
    /// Guest page tables are shadowed: what others write into them reaches the shadow only when that is thrown away.
    pub shadow_paging: bool,
    /// Where the guest can be stopped.
    pub means: Means,
    /// How many steps the assistant goes on for after the instruction that it was called for: a move of the whole state costs more than
    /// many interpreted instructions. The run is the same whatever this says.
    pub stretch: u64,
    /// The same where KVM is of no use for the time being.
    pub longest_stretch: u64,
}

impl Quirks {
    /// A KVM on VT-x or AMD-V with nested page tables.
    pub const HARDWARE: Self = Self {
        native: Native::All,
        exact_window: true,
        shadow_paging: false,
        means: Means { single_step: true, breakpoints: true },
        stretch: 64,
        longest_stretch: 4096,
    };

    /// A software KVM (PVM): ring 3 runs on the CPU, everything else in an emulator that looks for interrupts now and then.
    pub const SOFTWARE: Self = Self {
        native: Native::User64,
        exact_window: false,
        shadow_paging: true,
        means: Means { single_step: false, breakpoints: false },
        stretch: 256,
        longest_stretch: 4096,
    };

    /// What the answers about a host come to.
    pub fn of(host: &dyn Answers) -> Self {
        // Whoever runs a kernel on the CPU runs everything there; where some old mode is emulated, it is so by a KVM that knows how.
        let like = if host.is_native(Mode::LongRing0) { Self::HARDWARE } else { Self::SOFTWARE };
        let exact = |stop, modes: &[Mode]| modes.iter().all(|mode| host.is_exact(stop, *mode));
        Self {
            exact_window: exact(Stop::Window, &Mode::ALL),
            shadow_paging: ![Mode::LongRing0, Mode::LongRing3]
                .iter()
                .all(|mode| host.heeds_outside_writes(*mode)),
            means: Means {
                single_step: exact(Stop::SingleStep, like.native.modes()),
                breakpoints: exact(Stop::Breakpoint, like.native.modes()),
            },
            ..like
        }
    }

    /// Those of this host, found out once in the life of the process. Where there is no KVM it does not matter.
    pub fn of_host() -> Self {
        static HOST: OnceLock<Quirks> = OnceLock::new();
        *HOST.get_or_init(|| ask(Path::new(DEVICE), Self::of).unwrap_or(Self::SOFTWARE))
    }
}
