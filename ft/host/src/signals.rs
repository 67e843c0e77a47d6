//! Signals that end a run in good order.
//!
//! Not responsible for: what ending means (`live`, the caller of the machine).

use crate::error::HostError;
use crate::inbox::{Inbox, QuitReason};
use crate::terminal;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;

/// From now on SIGINT, SIGTERM, SIGHUP and SIGQUIT end the run in good order; a second one ends the process at once,
/// but not before the terminal is restored.
///
/// # Errors
/// [`HostError::Start`].
pub fn install(inbox: &Arc<Inbox>) -> Result<(), HostError> {
    let signals = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCONT];
    let mut signals = Signals::new(signals).map_err(|e| HostError::Start("the signal handlers", e))?;
    let inbox = Arc::clone(inbox);
    spawn("signals", move || {
        for signal in signals.forever() {
            if signal == SIGCONT {
                terminal::enter_again();
            } else if inbox.quit_reason().is_some() {
                terminal::restore();
                std::process::exit(128 + signal);
            } else {
                inbox.quit(QuitReason::Signal(signal));
            }
        }
    })
}

/// Starts a backend thread. It ends with the process at the latest.
pub(crate) fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), HostError> {
    let builder = std::thread::Builder::new().name(name.into());
    builder.spawn(body).map(drop).map_err(|e| HostError::Start(name, e))
}
