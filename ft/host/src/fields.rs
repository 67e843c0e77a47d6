//! Options of several fields, as QEMU has them: `file=PATH,if=virtio`.
//!
//! Not responsible for: which fields an option knows.

/// Splits at single commas; a doubled comma stands for one.
pub(crate) fn fields(text: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            out.push(String::new());
        } else if let Some(last) = out.last_mut() {
            last.push(c);
        }
    }
    out
}
