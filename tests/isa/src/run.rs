//! Many cases, on silicon and in the interpreter at once.
//!
//! Not responsible for: making them (`generate`), saying where outcomes differ (`compare`), printing.

use crate::case::{Case, Mode};
use crate::compare::{self, Difference};
use crate::generate::{self, Generator};
use crate::interpreted::Interpreted;
use crate::native::{Answer, BATCH, BATCHES, Native};
use crate::shrink;
use crate::sweep;
use crate::vector;
use anyhow::{Context, Result};
use gemel_x86::CpuModel;
use iced_x86::{Code, Mnemonic};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many cases, all modes together.
    pub cases: u64,
    /// The run ends after this time at the latest.
    pub time: Duration,
    /// Where random numbers start.
    pub seed: u64,
    /// Only this mnemonic.
    pub mnemonic: Option<Mnemonic>,
    /// The modes, one batch after another.
    pub modes: Vec<Mode>,
    /// How many reproducers of each kind are kept.
    pub examples: usize,
}

/// Differences of one kind: a mnemonic and the elements that differ.
#[derive(Clone, Default, Debug)]
pub struct Kind {
    /// How many cases differ so.
    pub cases: u64,
    /// Whether all of it is left to the vendor, see [`Difference::vendor`].
    pub vendor: bool,
    /// Reproducers with their differences.
    pub examples: Vec<(String, Vec<Difference>)>,
}

/// What a run showed.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Cases compared.
    pub cases: u64,
    /// Tries of the generator that made nothing to run.
    pub dropped: u64,
    /// By what the decoder saw: cases of each form. [`Code::INVALID`] counts what is no instruction.
    pub forms: BTreeMap<u16, u64>,
    /// By mnemonic and elements.
    pub kinds: BTreeMap<(String, String), Kind>,
    /// Cases without an outcome from silicon: reason and reproducer.
    pub lost: Vec<(String, String)>,
}

impl Report {
    /// Whether silicon and interpreter agreed on everything that is not left to the vendor.
    pub fn agreed(&self) -> bool {
        self.lost.is_empty() && self.kinds.values().all(|k| k.vendor)
    }

    /// Adds another run's.
    pub fn merge(&mut self, other: Self, examples: usize) {
        self.cases += other.cases;
        self.dropped += other.dropped;
        self.lost.extend(other.lost);
        for (form, cases) in other.forms {
            *self.forms.entry(form).or_default() += cases;
        }
        for (key, kind) in other.kinds {
            let mine = self.kinds.entry(key).or_default();
            mine.cases += kind.cases;
            mine.vendor = kind.vendor;
            mine.examples.extend(kind.examples);
            mine.examples.truncate(examples);
        }
    }
}

/// Silicon, the interpreter, and a generator for each mode.
pub struct Runner {
    native: Native,
    interpreted: Interpreted,
    generators: Vec<Generator>,
    model: CpuModel,
    like_cpus: bool,
}

impl Runner {
    /// Starts the child process and makes the guest.
    ///
    /// # Errors
    /// When the host can't do either.
    pub fn new(plan: &Plan, model: &CpuModel) -> Result<Self> {
        let native = Native::start().context("silicon cannot be asked")?;
        let generators = plan.modes.iter().map(|mode| {
            Generator::new(*mode, model.clone(), plan.seed ^ (*mode as u64) << 60, plan.mnemonic)
        });
        Ok(Self {
            native,
            interpreted: Interpreted::new(model.clone())?,
            generators: generators.filter(|g| !g.families().is_empty()).collect(),
            model: model.clone(),
            like_cpus: compare::host_is_amd(),
        })
    }

    /// Runs a plan.
    ///
    /// # Errors
    /// When one of the sides breaks down, or no mode has the plan's mnemonic.
    pub fn run(&mut self, plan: &Plan) -> Result<Report> {
        anyhow::ensure!(!self.generators.is_empty(), "no form of it runs in these modes");
        let start = Instant::now();
        let mut report = Report::default();
        let mut under_way: VecDeque<Vec<(Case, Code)>> = VecDeque::new();
        let mut submitted = 0;
        let mut turn = 0;
        loop {
            let more = submitted < plan.cases && start.elapsed() < plan.time;
            if more && self.native.room() > 0 {
                let wanted = (plan.cases - submitted).min(BATCH as u64) as usize;
                turn = (turn + 1) % self.generators.len();
                let batch = batch(&mut self.generators[turn], wanted, &mut report);
                let cases: Vec<_> = batch.iter().map(|(case, _)| *case).collect();
                self.native.submit(&cases)?;
                submitted += batch.len() as u64;
                under_way.push_back(batch);
                continue;
            }
            let Some(batch) = under_way.pop_front() else { break };
            let answers = self.native.collect()?;
            for ((case, code), answer) in batch.iter().zip(answers) {
                self.judge(case, *code, answer, plan.examples, &mut report)?;
            }
        }
        Ok(report)
    }

    /// Runs the sweep of all opcodes in the plan's modes; its number of cases and its seed do not matter.
    ///
    /// # Errors
    /// When one of the sides breaks down.
    pub fn sweep(&mut self, plan: &Plan) -> Result<Report> {
        let mut report = Report::default();
        for mode in &plan.modes {
            let mut cases = sweep::cases(*mode);
            loop {
                let batch: Vec<_> = cases.by_ref().take(BATCH * BATCHES).collect();
                if batch.is_empty() {
                    break;
                }
                let mut batch: Vec<_> =
                    batch.into_iter().map(|case| (case, generate::decode(&case))).collect();
                batch.retain(|(case, seen)| generate::may_run(&self.model, case, seen));
                let cases: Vec<_> = batch.iter().map(|(case, _)| *case).collect();
                let answers = self.native.run(&cases)?;
                for ((case, seen), answer) in batch.iter().zip(answers) {
                    self.judge(case, seen.code(), answer, plan.examples, &mut report)?;
                }
            }
        }
        Ok(report)
    }

    fn judge(
        &mut self,
        case: &Case,
        code: Code,
        answer: Answer,
        most: usize,
        report: &mut Report,
    ) -> Result<()> {
        report.cases += 1;
        *report.forms.entry(code as u16).or_default() += 1;
        let native = match answer {
            Ok(native) => native,
            Err(lost) => {
                report.lost.push((lost.to_string(), vector::to_text(case, None)));
                return Ok(());
            }
        };
        let ours = self.interpreted.run(case).with_context(|| vector::to_text(case, Some(&native)))?;
        let differences = compare::differences(case, &native, &ours, self.like_cpus);
        if differences.is_empty() {
            return Ok(());
        }
        let mnemonic = format!("{:?}", code.mnemonic());
        let kind = report.kinds.entry((mnemonic, elements(&differences))).or_default();
        kind.cases += 1;
        kind.vendor = differences.iter().all(|d| d.vendor);
        if kind.examples.len() < most {
            kind.examples.push((vector::to_text(case, Some(&native)), differences));
        }
        Ok(())
    }

    /// One case on both sides: what silicon left, what the interpreter left, and how they differ.
    ///
    /// # Errors
    /// When one of the sides breaks down.
    pub fn one(&mut self, case: &Case) -> Result<(Answer, crate::case::Outcome, Vec<Difference>)> {
        let answer = self.native.run(std::slice::from_ref(case))?.remove(0);
        let ours = self.interpreted.run(case).with_context(|| vector::to_text(case, None))?;
        let differences = match &answer {
            Ok(native) => compare::differences(case, native, &ours, self.like_cpus),
            Err(_) => Vec::new(),
        };
        Ok((answer, ours, differences))
    }

    /// The reproducers of a report, made as small as they can be while they differ in the same elements.
    ///
    /// # Errors
    /// When one of the sides breaks down.
    pub fn shrink(&mut self, report: &mut Report) -> Result<()> {
        for kind in report.kinds.values_mut() {
            for (text, differences) in &mut kind.examples {
                let (case, _) = vector::parse(text)?;
                let wanted = elements(differences);
                let small = shrink::smallest(case, |case| {
                    let allowed = generate::may_run(&self.model, case, &generate::decode(case));
                    Ok(allowed && elements(&self.one(case)?.2) == wanted)
                })?;
                if let (Ok(native), _, now) = self.one(&small)? {
                    (*text, *differences) = (vector::to_text(&small, Some(&native)), now);
                }
            }
        }
        Ok(())
    }
}

fn batch(generator: &mut Generator, wanted: usize, report: &mut Report) -> Vec<(Case, Code)> {
    let mut batch = Vec::with_capacity(wanted);
    while batch.len() < wanted {
        match generator.case() {
            Some(case) => batch.push(case),
            None => report.dropped += 1,
        }
    }
    batch
}

/// The elements that differ, registers of a file told as one.
fn elements(differences: &[Difference]) -> String {
    let mut names: Vec<_> = differences
        .iter()
        .map(|d| {
            let file = ["ymm", "zmm", "k", "st"].iter().find(|f| d.element.starts_with(**f));
            let general = ["rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", "r8", "r9", "r1"];
            match file {
                Some(file) => (*file).to_string(),
                None if general.iter().any(|g| d.element.starts_with(g)) => "gpr".into(),
                None => d.element.clone(),
            }
        })
        .collect();
    names.dedup();
    names.join(" ")
}

/// The mnemonic of a name, whatever the case of its letters.
pub fn mnemonic(name: &str) -> Option<Mnemonic> {
    Mnemonic::values().find(|m| format!("{m:?}").eq_ignore_ascii_case(name))
}

/// What the decoder sees in a case, as text.
pub fn instruction(case: &Case) -> String {
    let i = generate::decode(case);
    let mut text = String::new();
    let mut formatter = iced_x86::FastFormatter::new();
    formatter.format(&i, &mut text);
    text
}
