//! What a host can refuse.
//!
//! Not responsible for: what a guest does wrong, which is never an error.

use gemel_machine::EngineError;
use std::io;

/// Why KVM does not run the guest.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No KVM, or no right to it.
    #[error("cannot open /dev/kvm: {source}; {}", opening_advice(source))]
    Open {
        /// What the host said.
        source: io::Error,
    },
    /// A KVM that is too old.
    #[error("this host's KVM lacks {0}: it needs Linux 5.15 or newer; run with --accel interp")]
    Lacks(&'static str),
    /// KVM refused something.
    #[error("KVM: {what}: {source}; run with --accel interp, and look at the host's dmesg")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// KVM left the guest in a way that it should not.
    #[error("KVM stopped the guest: {0}; run with --accel interp, and look at the host's dmesg")]
    Stopped(String),
    /// A state that this host's KVM cannot hold.
    #[error("this host's KVM cannot hold the state: {0}")]
    State(String),
}

fn opening_advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => {
            "load the module kvm_intel or kvm_amd (and enable virtualisation in the firmware), or run with --accel interp"
        }
        io::ErrorKind::PermissionDenied => {
            "add yourself to the group that owns it (usually kvm), or run with --accel interp"
        }
        _ => "run with --accel interp",
    }
}

/// Names what was asked of KVM when it refuses.
pub(crate) trait Asked<T> {
    fn asked(self, what: &'static str) -> Result<T, KvmError>;
}

impl<T> Asked<T> for Result<T, kvm_ioctls::Error> {
    fn asked(self, what: &'static str) -> Result<T, KvmError> {
        self.map_err(|e| KvmError::Refused { what, source: io::Error::from_raw_os_error(e.errno()) })
    }
}

impl From<KvmError> for EngineError {
    fn from(error: KvmError) -> Self {
        const ADVICE: &str = "run with --accel interp, and look at the host's dmesg";
        match error {
            KvmError::State(what) => Self::State(what),
            KvmError::Refused { what, source } => Self::Host { what, source, advice: ADVICE },
            KvmError::Open { source } => Self::Host { what: "/dev/kvm", source, advice: ADVICE },
            other => Self::Host { what: "KVM", source: io::Error::other(other.to_string()), advice: ADVICE },
        }
    }
}
