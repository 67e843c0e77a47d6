//! Asks silicon, through a hardware KVM.
//!
//! Not responsible for: running a guest there (`board`).

use crate::case::{Asked, NotShown, ask};
use gemel_kvm::passport::{Access, DEVICE, Passport, Virtualization};
use gemel_kvm::{Native, Quirks};
use libtest_mimic::{Completion, Failed};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Asks any KVM, without believing it.
const OPINION: &str = "GEMEL_TABLES_OPINION";
/// Who makes the CPUs of the tables' model.
const VENDOR: &str = "AuthenticAMD";

/// What was said: as the table has it, otherwise, nothing.
static SAID: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

/// Whether guests on this host run on silicon that can judge, or why not, and whether there is a KVM to have an opinion.
fn judges() -> &'static Result<(), (String, bool)> {
    static JUDGES: OnceLock<Result<(), (String, bool)>> = OnceLock::new();
    JUDGES.get_or_init(|| {
        if let Err(why) = Passport::access(Path::new(DEVICE)) {
            return Err((why, false));
        }
        let passport = Passport::measure(Path::new(DEVICE));
        let no = |why: String| Err((why, true));
        match (&passport.kvm, passport.cpu.virtualization) {
            (Access::Usable { .. }, Virtualization::None) => {
                no("this CPU has neither VT-x nor AMD-V: its KVM is a program".into())
            }
            (Access::Usable { .. }, _) => {
                match passport.findings.as_ref().map(|findings| Quirks::of(findings).native) {
                    Some(Native::All) if passport.cpu.vendor == VENDOR => Ok(()),
                    Some(Native::All) => no(format!(
                        "the tables are of {VENDOR}'s CPUs, and this is {}'s",
                        passport.cpu.vendor
                    )),
                    _ => no("KVM here does not run ring 0 on the CPU".into()),
                }
            }
            (Access::Absent { why } | Access::Denied { why } | Access::Broken { why }, _) => {
                Err((why.clone(), false))
            }
        }
    })
}

/// Asks silicon, or, if that is wanted, whoever is here in its place.
pub fn judge(name: &'static str, case: fn()) -> Result<Completion, Failed> {
    let opinion = std::env::var_os(OPINION).is_some();
    let why = match judges() {
        Ok(()) => None,
        Err((why, true)) if opinion => Some(why),
        Err((why, _)) => return Ok(Completion::ignored_with(why)),
    };
    let said = catch_unwind(AssertUnwindSafe(|| ask(Asked::Kvm, case)));
    let (n, outcome) = match said {
        Ok(()) => (0, Ok("agrees".to_owned())),
        Err(panic) => match panic.downcast::<NotShown>() {
            Ok(not_shown) => (2, Ok(format!("shows nothing: {}", not_shown.0))),
            Err(panic) => (1, Err(text(panic.as_ref()))),
        },
    };
    SAID[n].fetch_add(1, Relaxed);
    match (why, outcome) {
        (None, Ok(_)) if n == 0 => Ok(Completion::Completed),
        (None, Ok(what)) => Ok(Completion::ignored_with(what)),
        (None, Err(what)) => Err(Failed::from(format!("silicon disagrees with {name}: {what}"))),
        (Some(_), Ok(what)) => Ok(Completion::ignored_with(format!("an opinion: {what}"))),
        (Some(_), Err(what)) => Ok(Completion::ignored_with(format!("an opinion: disagrees: {what}"))),
    }
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
}

/// Says how it went, if anybody was asked.
pub fn summary() {
    let [agrees, disagrees, nothing] = SAID.each_ref().map(|n| n.load(Relaxed));
    if agrees + disagrees + nothing != 0 {
        println!("KVM: {agrees} cases agree with the tables, {disagrees} disagree, {nothing} show nothing");
    }
}
