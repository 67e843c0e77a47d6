//! A case of a table: a function that asserts what the manuals say, on whichever engine it is asked of.
//!
//! Not responsible for: who can be asked (`silicon`).

use std::cell::Cell;
use std::panic::resume_unwind;

/// A case and its name.
pub type Case = (&'static str, fn());

/// The cases of a module, by the names of their functions.
macro_rules! cases {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn())),*] };
}
pub(crate) use cases;

/// Whom a case asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// The interpreter.
    Interpreter,
    /// KVM, and nobody in its stead.
    Kvm,
}

thread_local! {
    static ASKED: Cell<Asked> = const { Cell::new(Asked::Interpreter) };
}

/// Whom the case on this thread asks.
pub fn asked() -> Asked {
    ASKED.get()
}

/// Runs a case, which panics where the answer is another than the table's.
pub fn ask(whom: Asked, case: fn()) {
    ASKED.set(whom);
    case();
}

/// Why a case shows nothing of whom it asks. It ends there.
pub struct NotShown(pub &'static str);

/// Ends a case that can show nothing.
pub fn not_shown(why: &'static str) -> ! {
    resume_unwind(Box::new(NotShown(why)))
}
