#![allow(unsafe_code)] // runs the same bytes on the CPU under the test
#![allow(clippy::unwrap_used)] // a test that unwraps fails with the line
//! The last-instruction pointers of the x87 unit: when they change, and how FNSTENV lays them out.
//!
//! Not responsible for: the rest of the environment (`host_float`).

mod bench;

use bench::native::Native;
use bench::{Bench, CODE, DATA, Ended, Guest, Random};
use gemel_machine::Vcpu;
use gemel_x86::Segment;
use gemel_x86::segment::{CS, DS, SS};

/// FIP, FOP, FDP of an environment of 28 bytes, relative to code and data.
fn pointers(memory: &[u8], code: u64, data: u64) -> [u32; 3] {
    let word = |n: usize| u32::from_le_bytes(memory[64 + 4 * n..][..4].try_into().unwrap());
    [word(3).wrapping_sub(code as u32), word(4) >> 16, word(5).wrapping_sub(data as u32)]
}

/// FNSTENV [rdi + 64].
const FNSTENV: [u8; 3] = [0xd9, 0x77, 0x40];

#[test]
fn pointers_change_with_the_instructions_that_change_them_on_this_cpu() {
    if !bench::host_is_amd() {
        println!("skipped: other vendors keep the pointers by other rules");
        return;
    }
    let programs: [&[&[u8]]; 8] = [
        // FADD m32; behind prefixes; FLD m64 with displacement; FSTP m32.
        &[&[0xd8, 0x07]],
        &[&[0x3e, 0x66, 0xd8, 0x07]],
        &[&[0xdd, 0x47, 0x10]],
        &[&[0xd9, 0x5f, 0x08]],
        // A register form after a memory form leaves FDP.
        &[&[0xd8, 0x07], &[0xde, 0xc1]],
        // FLDCW, FNSTCW, FNSTSW AX, WAIT are no such instructions.
        &[&[0xd8, 0x07], &[0xd9, 0x7f, 0x20], &[0xdf, 0xe0], &[0x9b]],
        // FXCH, FLD ST(i), FNOP, FINCSTP are.
        &[&[0xd8, 0x07], &[0xd9, 0xc9], &[0xd9, 0xc2]],
        &[&[0xd8, 0x07], &[0xd9, 0xd0], &[0xd9, 0xf7]],
    ];
    let mut guest = Guest::new();
    for program in programs {
        let bytes = [program.concat().as_slice(), &FNSTENV].concat();
        let mut before = Bench::random(&mut Random(11), false);
        before.fx.ftw = 0x3f;
        let (mut native, mut ours) = (before.clone(), before);
        let page = Native::new(&bytes);
        page.run(&mut native);
        assert_eq!(guest.run_steps(&bytes, program.len() as u64 + 1, &mut ours), Ended::Retired);
        let native = pointers(&native.memory.0, page.address(), native.memory.0.as_ptr() as u64);
        assert_eq!(pointers(&ours.memory.0, CODE, DATA), native, "{program:02x?}: FIP, FOP, FDP");
    }
}

/// Real mode: linear addresses in pieces (SDM 1 figures 8-10 and 8-12).
#[test]
fn real_mode_environments_hold_linear_addresses() {
    let mut guest = Guest::new();
    let s = &mut guest.state;
    (s.cr0, s.cr3, s.cr4, s.efer) = (0x10, 0, 0, 0);
    s.seg[CS] = Segment::real(0x1000);
    s.seg[DS] = Segment::real(0x2000);
    s.seg[SS] = Segment::real(0);
    s.rip = 0;
    // FADD DWORD [bx + 4]; FNSTENV [bx + 64]; and with an operand-size prefix.
    for (bytes, wanted) in [
        (vec![0xd8, 0x47, 0x04, 0xd9, 0x77, 0x40], [0x0000, 0x1047, 0x0004, 0x2000, 0, 0, 0, 0]),
        (
            vec![0xd8, 0x47, 0x04, 0x66, 0xd9, 0x77, 0x40],
            [0x0000, 0xffff, 0x1047, 0x0000, 0x0004, 0xffff, 0x2000, 0x0000],
        ),
    ] {
        guest.ram.write(CODE, &bytes).unwrap();
        guest.ram.write(DATA, &[0; 128]).unwrap();
        guest.interp.restore(&guest.state).unwrap();
        guest.interp.run(&mut gemel_machine::Nothing { stop: guest.state.count + 2 }).unwrap();
        let wide = bytes.contains(&0x66);
        let at = DATA + 64 + if wide { 12 } else { 6 };
        let found = guest.ram.read_array::<16>(at).unwrap();
        let found: Vec<u16> = found.chunks(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
        let n = if wide { 8 } else { 4 };
        assert_eq!(found[..n], wanted[..n], "{bytes:02x?}");
    }
}
