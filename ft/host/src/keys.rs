//! Keys by name, as scan codes of set 2.
//!
//! Not responsible for: the keyboard (`devices/isa`), which sends the codes on and translates them if asked to.
//!
//! The names are QEMU's (`sendkey`), joined by `-` for keys held together: `a`, `shift-1`, `ctrl-alt-delete`. Codes:
//! IBM PS/2 Technical Reference, keyboard section, scan code set 2.

/// Name and make code; a code above 0xff is 0xe0 and its low byte.
const KEYS: &[(&str, u16)] = &[
    ("shift", 0x12),
    ("shift_r", 0x59),
    ("ctrl", 0x14),
    ("ctrl_r", 0xe014),
    ("alt", 0x11),
    ("alt_r", 0xe011),
    ("meta_l", 0xe01f),
    ("meta_r", 0xe027),
    ("menu", 0xe02f),
    ("esc", 0x76),
    ("1", 0x16),
    ("2", 0x1e),
    ("3", 0x26),
    ("4", 0x25),
    ("5", 0x2e),
    ("6", 0x36),
    ("7", 0x3d),
    ("8", 0x3e),
    ("9", 0x46),
    ("0", 0x45),
    ("minus", 0x4e),
    ("equal", 0x55),
    ("backspace", 0x66),
    ("tab", 0x0d),
    ("q", 0x15),
    ("w", 0x1d),
    ("e", 0x24),
    ("r", 0x2d),
    ("t", 0x2c),
    ("y", 0x35),
    ("u", 0x3c),
    ("i", 0x43),
    ("o", 0x44),
    ("p", 0x4d),
    ("bracket_left", 0x54),
    ("bracket_right", 0x5b),
    ("ret", 0x5a),
    ("a", 0x1c),
    ("s", 0x1b),
    ("d", 0x23),
    ("f", 0x2b),
    ("g", 0x34),
    ("h", 0x33),
    ("j", 0x3b),
    ("k", 0x42),
    ("l", 0x4b),
    ("semicolon", 0x4c),
    ("apostrophe", 0x52),
    ("grave_accent", 0x0e),
    ("backslash", 0x5d),
    ("less", 0x61),
    ("z", 0x1a),
    ("x", 0x22),
    ("c", 0x21),
    ("v", 0x2a),
    ("b", 0x32),
    ("n", 0x31),
    ("m", 0x3a),
    ("comma", 0x41),
    ("dot", 0x49),
    ("slash", 0x4a),
    ("spc", 0x29),
    ("caps_lock", 0x58),
    ("f1", 0x05),
    ("f2", 0x06),
    ("f3", 0x04),
    ("f4", 0x0c),
    ("f5", 0x03),
    ("f6", 0x0b),
    ("f7", 0x83),
    ("f8", 0x0a),
    ("f9", 0x01),
    ("f10", 0x09),
    ("f11", 0x78),
    ("f12", 0x07),
    ("num_lock", 0x77),
    ("scroll_lock", 0x7e),
    ("kp_0", 0x70),
    ("kp_1", 0x69),
    ("kp_2", 0x72),
    ("kp_3", 0x7a),
    ("kp_4", 0x6b),
    ("kp_5", 0x73),
    ("kp_6", 0x74),
    ("kp_7", 0x6c),
    ("kp_8", 0x75),
    ("kp_9", 0x7d),
    ("kp_decimal", 0x71),
    ("kp_multiply", 0x7c),
    ("kp_subtract", 0x7b),
    ("kp_add", 0x79),
    ("kp_divide", 0xe04a),
    ("kp_enter", 0xe05a),
    ("insert", 0xe070),
    ("delete", 0xe071),
    ("home", 0xe06c),
    ("end", 0xe069),
    ("pgup", 0xe07d),
    ("pgdn", 0xe07a),
    ("up", 0xe075),
    ("down", 0xe072),
    ("left", 0xe06b),
    ("right", 0xe074),
];

/// What a keyboard's buffer holds (PS/2 Technical Reference: 16 scan codes); a longer sequence would lose its end.
const BUFFER: usize = 16;

fn push(codes: &mut Vec<u8>, code: u16, release: bool) {
    if code > 0xff {
        codes.push(0xe0);
    }
    if release {
        codes.push(0xf0);
    }
    codes.push(code as u8);
}

/// Keys pressed in order and released in the opposite order.
///
/// # Errors
/// A sentence that names the unknown key.
pub fn scan_codes(keys: &str) -> Result<Vec<u8>, String> {
    let held = keys
        .split('-')
        .map(|name| {
            let found = KEYS.iter().find(|(known, _)| *known == name);
            found
                .map(|key| key.1)
                .ok_or_else(|| format!("unknown key '{name}'; keys are named as for QEMU's sendkey"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut codes = Vec::new();
    held.iter().for_each(|code| push(&mut codes, *code, false));
    held.iter().rev().for_each(|code| push(&mut codes, *code, true));
    if codes.len() > BUFFER {
        return Err(format!("'{keys}' is more than a keyboard can send at once"));
    }
    Ok(codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_pressed_and_released() {
        assert_eq!(scan_codes("a"), Ok(vec![0x1c, 0xf0, 0x1c]));
        assert_eq!(scan_codes("up"), Ok(vec![0xe0, 0x75, 0xe0, 0xf0, 0x75]));
        assert_eq!(scan_codes("shift-1"), Ok(vec![0x12, 0x16, 0xf0, 0x16, 0xf0, 0x12]));
        let all = scan_codes("ctrl-alt-delete").unwrap();
        assert_eq!(all, [0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14]);
        assert!(scan_codes("").is_err() && scan_codes("a-").is_err() && scan_codes("hyper").is_err());
        assert!(scan_codes("a-b-c-d-e-f-g").is_err());
    }

    #[test]
    fn every_key_has_a_name_and_a_code_of_its_own() {
        for (i, a) in KEYS.iter().enumerate() {
            assert!(KEYS[..i].iter().all(|b| a.0 != b.0 && a.1 != b.1), "{a:?}");
        }
    }
}
