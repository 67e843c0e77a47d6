//! Judges the serial output of a guest: `@OUT` lines as expected, and a clean `@END`. The same rule as `tests/guests/check.sh`.

use anyhow::{Result, bail};

/// An error that shows both sides unless `serial` has exactly the lines `expected`, in order, and the guest ended with code 0.
pub fn check(expected: &[String], serial: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(serial);
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
    let results: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("@OUT")).collect();
    if results != expected {
        bail!(
            "the guest's results differ\nexpected:\n  {}\nprinted:\n  {}\nend of the serial output:\n{}",
            expected.join("\n  "),
            results.join("\n  "),
            crate::child::tail(&text)
        );
    }
    let clean = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        matches!(words[..], ["@END", _, "0"])
    };
    if !lines.iter().any(clean) {
        bail!("no clean @END; end of the serial output:\n{}", crate::child::tail(&text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn only_all_results_in_order_with_a_clean_end_pass() {
        let expected = ["@OUT g a  -".to_owned(), "@OUT g b".to_owned()];
        assert!(check(&expected, b"[ 0.0] Linux\r\n@OUT g a  -\r\n@OUT g b\r\n@END g 0\r\n").is_ok());
        for wrong in [
            &b"@OUT g a  -\r\n@OUT g b\r\n@END g 1\r\n"[..],
            b"@OUT g a  -\r\n@OUT g b\r\n",
            b"@OUT g a  -\r\n@END g 0\r\n",
            b"@OUT g b\r\n@OUT g a  -\r\n@END g 0\r\n",
            b"@OUT g a  -\r\n@OUT g b\r\n@OUT g b\r\n@END g 0\r\n",
            b"@OUT g a -\r\n@OUT g b\r\n@END g 0\r\n",
            b"",
        ] {
            assert!(check(&expected, wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
