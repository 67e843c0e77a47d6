//! Vectors that say what somebody left of an instruction, as a comparison of two machines writes them: who is right.
//!
//! Not responsible for: a vector's words (`vector`), running cases (`run`).
//!
//! A line that begins with `#` names whoever left what the next vector says.

use crate::case::{Case, Outcome};
use crate::compare::{self, Difference};
use crate::run::Runner;
use crate::vector;
use anyhow::{Context, Result};

/// What somebody left of a case; nothing that a vector tells if there is no outcome.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who.
    pub who: String,
    /// The case.
    pub case: Case,
    /// What is left.
    pub outcome: Option<Outcome>,
}

/// Who is right about one case.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The claim's difference from silicon's outcome, or from the interpreter's where silicon has none. `None` if nothing was
    /// claimed.
    pub claim: Option<Vec<Difference>>,
    /// The interpreter's difference from silicon's outcome; otherwise why silicon has none.
    pub interpreter: Result<Vec<Difference>, String>,
}

/// Reads a file of claims.
///
/// # Errors
/// Names the line that is no vector.
pub fn read(text: &str) -> Result<Vec<Claim>> {
    let (mut claims, mut who) = (Vec::new(), "vector");
    for (number, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
        if let Some(name) = line.strip_prefix('#') {
            who = name.trim();
            continue;
        }
        let (case, outcome) = vector::parse(line).with_context(|| format!("line {}", number + 1))?;
        claims.push(Claim { who: who.into(), case, outcome });
    }
    Ok(claims)
}

/// Asks silicon and the interpreter.
///
/// # Errors
/// When one of them breaks down.
pub fn judge(runner: &mut Runner, claim: &Claim) -> Result<Verdict> {
    let (answer, ours, differences) = runner.one(&claim.case)?;
    let (reference, interpreter) = match answer {
        Ok(native) => (native, Ok(differences)),
        Err(lost) => (ours, Err(lost.to_string())),
    };
    let like_cpus = interpreter.is_err() || compare::host_is_amd();
    let against = |outcome| compare::differences(&claim.case, &reference, outcome, like_cpus);
    Ok(Verdict { claim: claim.outcome.as_ref().map(against), interpreter })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_have_the_name_above_them() {
        let text = "# head\n# one\n64 90 rip=12342800 > rip=12342801\n\n# other\n64 90 rip=12342800\n";
        let claims = read(text).unwrap();
        assert_eq!(claims.iter().map(|c| c.who.as_str()).collect::<Vec<_>>(), ["one", "other"]);
        assert_eq!(claims[0].case, claims[1].case);
        assert!(claims[0].outcome.is_some() && claims[1].outcome.is_none());
        assert!(read("# x\n64").unwrap_err().to_string().contains("line 2"));
    }
}
