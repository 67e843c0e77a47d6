#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! The corpus of vectors measured on silicon: the interpreter leaves what the CPU left, on any host that can run the model.
//!
//! Not responsible for: new cases (`silicon`).

use gemel_isa_tests::corpus;
use gemel_x86::CpuModel;

/// Every mnemonic of the corpus has at least so many cases.
const EACH: usize = 50;

#[test]
fn the_interpreter_leaves_what_silicon_left() {
    let model = CpuModel::x86_64_v3();
    if let Some(feature) = gemel_interp::missing_on_host(&model) {
        println!(
            "skipped: this host's CPU lacks {feature}, which the interpreter needs for the model of the corpus"
        );
        return;
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/x86-64-v3.corpus");
    let corpus = corpus::read(&std::fs::read(path).unwrap()).unwrap();
    let checked = corpus::check(&corpus, &model).unwrap();
    for (text, differences) in checked.wrong.iter().take(10) {
        println!("{text}");
        differences.iter().for_each(|d| println!("    {d}"));
    }
    println!("{} vectors, {} left out: another vendor's unit", corpus.vectors.len(), checked.left_out);
    assert!(checked.wrong.is_empty(), "{} vectors differ", checked.wrong.len());
    let few: Vec<_> = checked.cases.iter().filter(|(_, n)| **n < EACH).collect();
    assert!(few.is_empty(), "fewer than {EACH} cases of {few:?}");
    assert!(checked.cases.len() + checked.left_out / EACH > 900, "only {} mnemonics", checked.cases.len());
}
