//! A pair with a guest of a few instructions: its primary dies, and nobody notices. Real guests: `tests/system`.

use super::{gemel, kernel};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub const LETTERS: usize = 150;

/// Prints LETTERS letters, a millisecond or two of guest time apart, and ends by the debug-exit port.
pub fn alphabet() -> Vec<u8> {
    let mut code = vec![0xb3, b'a']; // mov bl, 'a'
    code.extend_from_slice(&[0xbe, LETTERS as u8, 0, 0, 0]); // mov esi, LETTERS
    code.extend_from_slice(&[0x66, 0xba, 0xf8, 0x03]); // next: mov dx, 0x3f8
    code.extend_from_slice(&[0x88, 0xd8, 0xee]); // mov al, bl; out dx, al
    code.extend_from_slice(&[0xfe, 0xc3, 0x80, 0xfb, b'z' + 1]); // inc bl; cmp bl, 'z' + 1
    code.extend_from_slice(&[0x75, 0x02, 0xb3, b'a']); // jne wait; mov bl, 'a'
    code.extend_from_slice(&[0xb9, 0x40, 0x0d, 0x03, 0x00]); // wait: mov ecx, 200000
    code.extend_from_slice(&[0x49, 0x75, 0xfd]); // dec ecx; jnz back to it
    code.extend_from_slice(&[0x4e, 0x75, 0xe5]); // dec esi; jnz next
    code.extend_from_slice(&[0x66, 0xba, 0xf4, 0x00, 0x30, 0xc0, 0xee, 0xf4]); // mov dx, 0xf4; xor al, al; out; hlt
    code
}

/// The same, but it resets the machine by a triple fault after each letter and counts them in the RTC's RAM.
pub fn alphabet_of_resets() -> Vec<u8> {
    let mut code = vec![0xb0, 0x70, 0xe6, 0x70, 0xe4, 0x71]; // mov al, 0x70; out 0x70, al; in al, 0x71
    code.extend_from_slice(&[0x88, 0xc3, 0xfe, 0xc0, 0xe6, 0x71]); // mov bl, al; inc al; out 0x71, al
    code.extend_from_slice(&[0x0f, 0xb6, 0xc3, 0xb1, 26, 0xf6, 0xf1]); // movzx eax, bl; mov cl, 26; div cl
    code.extend_from_slice(&[0x88, 0xe0, 0x04, b'a']); // mov al, ah; add al, 'a'
    code.extend_from_slice(&[0x66, 0xba, 0xf8, 0x03, 0xee]); // mov dx, 0x3f8; out dx, al
    code.extend_from_slice(&[0xb9, 0x40, 0x0d, 0x03, 0x00]); // mov ecx, 200000
    code.extend_from_slice(&[0x49, 0x75, 0xfd]); // dec ecx; jnz back to it
    code.extend_from_slice(&[0x80, 0xfb, LETTERS as u8 - 1, 0x74, 0x09]); // cmp bl, LETTERS - 1; je past the reset
    code.extend_from_slice(&[0x6a, 0x00, 0x6a, 0x00, 0x0f, 0x01, 0x1c, 0x24, 0xcc]); // an empty IDT; int3
    code.extend_from_slice(&[0x66, 0xba, 0xf4, 0x00, 0x30, 0xc0, 0xee, 0xf4]); // mov dx, 0xf4; xor al, al; out; hlt
    code
}

pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub fn start(folder: &Path, arguments: &str) -> Self {
        let name = arguments.split_whitespace().next().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_gemel"))
            .args(arguments.split_whitespace())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(File::create(folder.join(format!("{name}.out"))).unwrap())
            .stderr(File::create(folder.join(format!("{name}.err"))).unwrap())
            .spawn();
        Self(child.unwrap())
    }

    pub fn exit_code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} does not come");
        sleep(Duration::from_millis(2));
    }
}

/// Nobody is to be suspected because the host is busy with other tests.
pub const SIDE: &str = "--arbiter arbiter --kernel guest -m 16 --silence 5000 --drop 5000 --epoch 1000000";

pub fn start_with(folder: &Path, code: &[u8]) -> [Process; 3] {
    fs::write(folder.join("guest"), kernel(code)).unwrap();
    let primary =
        Process::start(folder, &format!("primary --listen unix:link --console unix:p --log p.gml {SIDE}"));
    wait_until("the primary", || fs::read_to_string(folder.join("primary.err")).unwrap().contains("waiting"));
    let secondary =
        Process::start(folder, &format!("secondary --connect unix:link --console unix:s --log s.gml {SIDE}"));
    [primary, secondary, Process::start(folder, "console unix:p unix:s")]
}

fn start(folder: &Path) -> [Process; 3] {
    start_printing(folder, &alphabet())
}

fn start_printing(folder: &Path, code: &[u8]) -> [Process; 3] {
    let pair = start_with(folder, code);
    wait_until("the 40th letter", || fs::metadata(folder.join("console.out")).unwrap().len() >= 40);
    pair
}

/// What the guest prints, and so must the console, and a replay of the survivor's log.
fn check_output(folder: &Path, log: &str) {
    let expected: Vec<u8> = (b'a'..=b'z').cycle().take(LETTERS).collect();
    let shown = fs::read(folder.join("console.out")).unwrap();
    assert_eq!(String::from_utf8_lossy(&shown), String::from_utf8_lossy(&expected));
    let replay = gemel(folder, &format!("replay {log} --serial file:replayed"));
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    assert_eq!(fs::read(folder.join("replayed")).unwrap(), expected);
}

#[test]
fn a_guest_outlives_its_primary() {
    let folder = tempfile::tempdir().unwrap();
    let [mut primary, mut secondary, mut console] = start(folder.path());
    primary.0.kill().unwrap();
    assert_eq!(console.exit_code(), Some(0));
    assert_eq!(secondary.exit_code(), Some(1), "the guest wrote 0 to the debug-exit port");
    check_output(folder.path(), "s.gml");
}

#[test]
fn a_guest_that_resets_all_the_time_outlives_its_primary() {
    let folder = tempfile::tempdir().unwrap();
    let [mut primary, mut secondary, mut console] = start_printing(folder.path(), &alphabet_of_resets());
    primary.0.kill().unwrap();
    assert_eq!(console.exit_code(), Some(0));
    assert_eq!(secondary.exit_code(), Some(1));
    check_output(folder.path(), "s.gml");
}

#[test]
fn a_guest_outlives_its_secondary() {
    let folder = tempfile::tempdir().unwrap();
    let [mut primary, mut secondary, mut console] = start(folder.path());
    secondary.0.kill().unwrap();
    assert_eq!(console.exit_code(), Some(0));
    assert_eq!(primary.exit_code(), Some(1));
    check_output(folder.path(), "p.gml");
}

#[test]
fn a_healthy_pair_ends_together_with_the_same_digest() {
    let folder = tempfile::tempdir().unwrap();
    let [mut primary, mut secondary, mut console] = start(folder.path());
    assert_eq!(console.exit_code(), Some(0));
    assert_eq!((primary.exit_code(), secondary.exit_code()), (Some(1), Some(1)));
    check_output(folder.path(), "p.gml");
    check_output(folder.path(), "s.gml");
}

/// mov dx, 0x3f8; mov al, '?'; out dx, al; sti; hlt; jmp back to hlt: nothing wakes it.
pub const ASKS_AND_SLEEPS: &[u8] = &[0x66, 0xba, 0xf8, 0x03, 0xb0, b'?', 0xee, 0xfb, 0xf4, 0xeb, 0xfd];

#[test]
fn what_a_guest_prints_before_it_sleeps_does_not_wait_until_it_wakes() {
    let folder = tempfile::tempdir().unwrap();
    let _pair = start_with(folder.path(), ASKS_AND_SLEEPS);
    wait_until("the question", || fs::read(folder.path().join("console.out")).unwrap() == b"?");
}

#[test]
fn sides_that_do_not_fit_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("guest"), kernel(&alphabet())).unwrap();
    let _primary = Process::start(folder, &format!("primary --listen unix:link --console unix:p {SIDE}"));
    wait_until("the primary", || fs::read_to_string(folder.join("primary.err")).unwrap().contains("waiting"));
    for (options, complaint) in [
        ("--connect unix:link --append x", "the machines differ"),
        ("--connect unix:link --vm other", "the VM is"),
        ("--connect unix:nobody", "start the primary first"),
        ("--connect unix:p", "no answer"),
    ] {
        let output = gemel(folder, &format!("secondary {options} --console unix:s {SIDE}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{options}: {said}");
        assert!(said.contains(complaint) && said.lines().count() == 1, "{options}: {said}");
    }
    let output = gemel(folder, "console --status unix:nobody");
    assert_eq!(output.status.code(), Some(2));
}
