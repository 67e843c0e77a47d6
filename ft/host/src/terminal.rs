//! The terminal in raw mode, and back again on every way out.
//!
//! Not responsible for: bytes in and out (`serial/stdio`).
//!
//! What the terminal was like is kept in one place for the whole process, so that a panic in any thread and a second
//! signal find it too.

use crate::error::HostError;
use parking_lot::Mutex;
use rustix::termios::{OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcsetattr};
use std::io::stdin;
use std::sync::Once;

/// What the terminal was before, while it is in raw mode.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal is in raw mode while this lives.
pub struct RawMode(());

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Whether standard input is a terminal.
pub fn is_terminal() -> bool {
    isatty(stdin())
}

/// Switches the terminal to raw mode: every key goes to the guest, Ctrl-C too. Output keeps its line ends, so that
/// messages of this program stay readable.
///
/// # Errors
/// [`HostError::Terminal`].
pub fn raw() -> Result<RawMode, HostError> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            report(panic);
        }));
    });
    let before = tcgetattr(stdin()).map_err(|e| HostError::Terminal(e.into()))?;
    *BEFORE.lock() = Some(before);
    enter_again();
    Ok(RawMode(()))
}

/// Puts the terminal back as it was. Harmless when it is.
pub fn restore() {
    if let Some(before) = BEFORE.lock().take() {
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &before);
    }
}

/// After the process was stopped and continued, a shell has set the terminal up for itself.
pub(crate) fn enter_again() {
    if let Some(before) = &*BEFORE.lock() {
        let mut raw = before.clone();
        raw.make_raw();
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        let _ = tcsetattr(stdin(), OptionalActions::Now, &raw);
    }
}
