//! A passport as a table that a person reads.
//!
//! Not responsible for: what is in it.

use gemel_kvm::passport::{
    Access, Comparison, DirtyLog, Engine, Execution, Findings, Fit, Measured, Mode, Passport, Stopped,
    Treatment, Virtualization,
};
use gemel_x86::CpuModel;
use std::fmt::{Display, Write};

/// Width of the column of names.
const NAME: usize = 22;
/// Width of a column of findings.
const CELL: usize = 14;

/// Lines of a name and what belongs to it.
#[derive(Default)]
struct Table {
    text: String,
    notes: Vec<String>,
}

impl Table {
    fn line(&mut self, name: &str, what: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{name:NAME$}{what}");
    }

    fn row<T>(
        &mut self,
        name: &str,
        findings: &Findings,
        cell: impl Fn(Mode) -> Option<Measured<T>>,
        show: impl Fn(&T) -> String,
    ) {
        let cells = findings.modes.keys().map(|mode| match cell(*mode) {
            None => "-".to_owned(),
            Some(Measured::Found(found)) => show(&found),
            Some(Measured::Unknown(why)) => self.note(why),
        });
        let cells: Vec<String> = cells.map(|cell| format!("{cell:CELL$}")).collect();
        self.line(name, cells.concat().trim_end());
    }

    /// A footnote's mark.
    fn note(&mut self, why: String) -> String {
        let n = match self.notes.iter().position(|note| *note == why) {
            Some(n) => n,
            None => {
                self.notes.push(why);
                self.notes.len() - 1
            }
        };
        format!("? [{}]", n + 1)
    }

    fn single<T>(&mut self, name: &str, measured: &Measured<T>, show: impl Fn(&T) -> String) {
        match measured {
            Measured::Found(found) => self.line(name, show(found)),
            Measured::Unknown(why) => self.line(name, format_args!("unknown: {why}")),
        }
    }
}

/// The whole passport, and what it means for a guest of this model.
pub fn passport(passport: &Passport, model: &CpuModel) -> String {
    let mut table = Table::default();
    let cpu = &passport.cpu;
    let [family, number, stepping] = cpu.signature;
    table.line(
        "CPU",
        format_args!("{} ({}, family {family}, model {number}, stepping {stepping})", cpu.name, cpu.vendor),
    );
    table.line(
        "for hypervisors",
        match cpu.virtualization {
            Virtualization::VtX => "VT-x",
            Virtualization::AmdV => "AMD-V",
            Virtualization::None => "neither VT-x nor AMD-V",
        },
    );
    table.line(
        "this host is",
        match &cpu.hypervisor {
            Some(name) => format!("a guest itself, of {name}: its KVM is nested, or software"),
            None => "not a guest".into(),
        },
    );
    table.line("kernel", &passport.kernel);
    match &passport.kvm {
        Access::Usable { api, modules } => {
            table.line("KVM", format_args!("usable, API version {api}, modules: {}", modules.join(" ")));
        }
        Access::Absent { why } => table.line("KVM", format_args!("absent: {why}")),
        Access::Denied { why } => table.line("KVM", format_args!("denied: {why}")),
        Access::Broken { why } => table.line("KVM", format_args!("broken: {why}")),
    }
    if let Some(findings) = &passport.findings {
        table.findings(findings);
    }
    table.verdict(passport, model);
    table.text
}

impl Table {
    fn findings(&mut self, findings: &Findings) {
        let Findings { modes, syscall, int_n, tsc, tables, dirty_log, counter, exits } = findings;
        let heads: String = modes.keys().map(|mode| format!("{:CELL$}", mode.to_string())).collect();
        self.text.push('\n');
        self.line("", heads.trim_end());
        self.row(
            "million instr./s",
            findings,
            |mode| Some(modes[&mode].rate.clone()),
            |rate| {
                format!("{rate}{}", if *rate < gemel_kvm::passport::NATIVE { " emulated" } else { " native" })
            },
        );
        self.row("single step", findings, |mode| Some(modes[&mode].single_step.clone()), stopped);
        self.row("breakpoint", findings, |mode| Some(modes[&mode].breakpoint.clone()), stopped);
        self.row("interrupt window", findings, |mode| Some(modes[&mode].window.clone()), stopped);
        let names = modes.values().next().map(|mode| mode.instructions.keys().collect::<Vec<_>>());
        for name in names.unwrap_or_default() {
            self.row(
                &name.to_uppercase(),
                findings,
                |mode| modes[&mode].instructions.get(name).cloned(),
                treatment,
            );
        }
        for unit in ["sse", "x87"] {
            let name = format!("{unit} arithmetic");
            self.row(&name, findings, |mode| modes[&mode].arithmetic.get(unit).cloned(), execution);
        }
        for exit in ["pio", "mmio", "hlt", "msr", "cpuid", "immediate_exit"] {
            let name = format!("{exit}, ns");
            self.row(&name, findings, |mode| exits.get(&mode)?.get(exit).cloned(), u64::to_string);
        }
        self.row(
            "A/D bits of a load",
            findings,
            |mode| tables.bits_exact.get(&mode).cloned(),
            |exact| {
                if *exact { "exact".into() } else { "INEXACT".into() }
            },
        );
        self.row(
            "tables written outside",
            findings,
            |mode| tables.outside_writes.get(&mode).cloned(),
            |heeded| if *heeded { "heeded".into() } else { "STALE".into() },
        );
        self.text.push('\n');
        for (n, note) in std::mem::take(&mut self.notes).iter().enumerate() {
            self.line("", format_args!("[{}] {note}", n + 1));
        }
        self.single("SYSCALL from ring 3", syscall, execution);
        self.single("INT n from ring 3", int_n, execution);
        let yes_no = |yes: &'static str, no: &'static str| {
            move |found: &bool| if *found { yes } else { no }.to_owned()
        };
        self.single("TSC: value set", &tsc.offset, yes_no("honoured", "IGNORED"));
        self.single("TSC: CR4.TSD, ring 3", &tsc.user_disable, yes_no("faults, as it should", "IGNORED"));
        self.single(
            "TSC: not in CPUID",
            &tsc.absent_faults,
            yes_no("RDTSC faults", "RDTSC works all the same"),
        );
        self.single("TSC: slowest rate", &tsc.slowest_khz, |khz| format!("{khz} kHz"));
        self.line("page tables", &tables.kind);
        self.single(
            "  speculative access",
            &tables.speculation_shows,
            yes_no("LEAVES accessed bits", "left no accessed bit (not seen; not proved)"),
        );
        self.single("  dirty by a walk", &tables.walks_dirty, yes_no("yes, they count as written", "no"));
        self.single("dirty log", dirty_log, |log| {
            match log {
                DirtyLog::Exact => "exact",
                DirtyLog::More => "names more pages than were written",
                DirtyLog::Less => "MISSES written pages",
            }
            .into()
        });
        self.single("branch counter", counter, |counter| {
            let [made, counted] = counter.counted;
            let skid = counter.skid.iter().map(|(by, times)| format!("{by}: {times}")).collect::<Vec<_>>();
            format!("{counted} counted of {made} (event {:#x}); skid {}", counter.event, skid.join(", "))
        });
    }

    fn verdict(&mut self, passport: &Passport, model: &CpuModel) {
        self.text.push('\n');
        let shortcomings = passport.shortcomings();
        self.line(
            "--accel auto takes",
            if shortcomings.is_empty() { "KVM" } else { "the interpreter, because KVM here" },
        );
        for shortcoming in shortcomings {
            self.line("", shortcoming);
        }
        let leaks = passport.leaks(model);
        if !leaks.is_empty() {
            self.line(
                "recording on KVM",
                format_args!("is refused for guests of {} that do not stay clear of:", model.text()),
            );
        }
        for met in leaks {
            let remedy = met.remedy.map_or(String::new(), |remedy| format!("; closed by {remedy}"));
            self.line("", format_args!("{}: {}{remedy}", met.leak, met.what));
        }
    }
}

fn stopped(stop: &Stopped) -> String {
    match stop {
        Stopped::Exactly => "exact",
        Stopped::Late => "LATE",
        Stopped::Never => "NEVER",
    }
    .into()
}

fn treatment(treatment: &Treatment) -> String {
    match treatment {
        Treatment::Intercepted => "intercepted".into(),
        Treatment::Masked => "masked".into(),
        Treatment::Faults(vector) => format!("{} ", exception(*vector)).trim().to_owned(),
        Treatment::Leaks => "LEAKS".into(),
    }
}

fn execution(execution: &Execution) -> String {
    match execution {
        Execution::Right => "right".into(),
        Execution::Wrong => "WRONG".into(),
        Execution::HandedOut => "handed out".into(),
        Execution::Faults(vector) => exception(*vector),
    }
}

/// The mnemonic of the exceptions that are met here.
fn exception(vector: u8) -> String {
    match vector {
        6 => "#UD".into(),
        7 => "#NM".into(),
        13 => "#GP".into(),
        14 => "#PF".into(),
        other => format!("exception {other}"),
    }
}

/// How this host and another fit.
pub fn comparison(other: &Passport, comparison: &Comparison) -> String {
    let mut table = Table::default();
    table.text.push('\n');
    table.line("the other host", format_args!("{} (kernel {})", other.cpu.name, other.kernel));
    table.line("CPU models of both", comparison.models.join(" "));
    table.line("counts of both", comparison.counts.join(" "));
    for Fit { here, there, fits, why_not, unproved } in &comparison.fits {
        let name = |engine: &Engine| match engine {
            Engine::Interp => "interpreter",
            Engine::Kvm => "KVM",
        };
        let verdict = if *fits { "can be a pair, and replay each other's logs" } else { "CANNOT be a pair" };
        table.line("", format_args!("{} here, {} there: {verdict}", name(here), name(there)));
        why_not.iter().for_each(|why| table.line("", format_args!("    {why}")));
        unproved.iter().for_each(|what| table.line("", format_args!("    unproved: {what}")));
    }
    table.text
}
