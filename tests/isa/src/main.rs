//! `gemel-isa`: measures the interpreter against the CPU that it runs on.
#![allow(missing_docs)]
use gemel_isa_tests::case::Mode;
use gemel_isa_tests::generate::Generator;
use gemel_isa_tests::interpreted::Interpreted;
use gemel_x86::CpuModel;
fn main() -> anyhow::Result<()> {
    let model = CpuModel::x86_64_v3();
    let mut i = Interpreted::new(model.clone())?;
    for mode in Mode::ALL {
        let mut g = Generator::new(mode, model.clone(), 1, None);
        println!("{mode:?}: {} mnemonics {} forms", g.families().len(), g.families().iter().map(|f| f.forms.len()).sum::<usize>());
        let t = std::time::Instant::now();
        let mut cases = Vec::new();
        let (mut no, mut inv) = (0, 0);
        while cases.len() < 100000 { match g.case() { Some((c,code)) => { cases.push(c); inv += usize::from(code == iced_x86::Code::INVALID) }, None => no += 1 } }
        println!(" {:?} generated, none {no} invalid {inv}", t.elapsed());
        let t = std::time::Instant::now();
        let mut f = [0usize; 33];
        for c in &cases { let o = i.run(c)?; f[o.fault.map_or(32, |f| f.vector as usize)] += 1; }
        println!(" {:?} run {f:?}", t.elapsed());
    }
    Ok(())
}
