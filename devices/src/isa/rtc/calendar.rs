//! Seconds since 1970 as the clock's registers hold them, and back.
//!
//! Not responsible for: when they advance (`rtc`), time zones and daylight saving: the board's clock runs in UTC.

/// Index of a register in [`Fields`].
pub(super) const SECOND: usize = 0;
pub(super) const MINUTE: usize = 1;
pub(super) const HOUR: usize = 2;
pub(super) const WEEKDAY: usize = 3;
pub(super) const DAY: usize = 4;
pub(super) const MONTH: usize = 5;
pub(super) const YEAR: usize = 6;
pub(super) const CENTURY: usize = 7;

/// Second, minute, hour, weekday (Sunday is 1), day, month, year of the century, century: as registers hold them.
pub(super) type Fields = [u8; 8];

const SECONDS_A_DAY: i64 = 86_400;

/// How registers hold numbers (register B's DM and 24/12).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    /// Binary, not BCD.
    pub binary: bool,
    /// Hours 0 to 23, not 1 to 12 with bit 7 for the afternoon.
    pub day_has_24: bool,
}

impl Format {
    /// A number below 100 as a register holds it.
    pub(super) const fn encode(self, n: u8) -> u8 {
        if self.binary { n } else { ((n / 10) << 4) | (n % 10) }
    }

    /// The number in a register; nonsense digits give some number.
    pub(super) const fn decode(self, raw: u8) -> u8 {
        if self.binary { raw } else { (raw >> 4) * 10 + (raw & 15) }
    }

    /// An hour of the day, 0 to 23.
    pub(super) const fn encode_hour(self, hour: u8) -> u8 {
        if self.day_has_24 {
            return self.encode(hour);
        }
        let twelve = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(twelve) | if hour >= 12 { 0x80 } else { 0 }
    }

    /// The hour in a register.
    pub(super) const fn decode_hour(self, raw: u8) -> u8 {
        if self.day_has_24 {
            return self.decode(raw);
        }
        self.decode(raw & 0x7f) % 12 + if raw & 0x80 != 0 { 12 } else { 0 }
    }
}

/// The day's number from 1970-01-01 in the proleptic Gregorian calendar.
const fn day_of(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last; 400 of them have 146,097 days.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a day's number.
const fn date_of(day: i64) -> (i64, u8, u8) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let day_of_era = day.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month as u8, day_of_month as u8)
}

/// What the registers hold at a time. `weekday_shift` (0 to 6) is by how much the guest has set the weekday off the
/// calendar's.
pub(super) fn fields(seconds: i64, weekday_shift: u8, format: Format) -> Fields {
    let (day, second) = (seconds.div_euclid(SECONDS_A_DAY), seconds.rem_euclid(SECONDS_A_DAY));
    let (year, month, day_of_month) = date_of(day);
    // 1970-01-01 was a Thursday, the fifth day.
    let weekday = ((day + 4).rem_euclid(7) as u8 + weekday_shift) % 7 + 1;
    [
        format.encode((second % 60) as u8),
        format.encode((second / 60 % 60) as u8),
        format.encode_hour((second / 3600) as u8),
        format.encode(weekday),
        format.encode(day_of_month),
        format.encode(month),
        format.encode(year.rem_euclid(100) as u8),
        format.encode(year.div_euclid(100).rem_euclid(100) as u8),
    ]
}

/// The time that registers name, and the weekday's shift. Numbers out of range count on (the 31st of a month of 30
/// days is the first of the next); a month out of range is January.
pub(super) fn seconds(fields: &Fields, format: Format) -> (i64, u8) {
    let number = |field: usize| i64::from(format.decode(fields[field]));
    let year = number(CENTURY) * 100 + number(YEAR);
    let month = if (1..=12).contains(&number(MONTH)) { number(MONTH) } else { 1 };
    let day = day_of(year, month, number(DAY));
    let hour = i64::from(format.decode_hour(fields[HOUR]));
    let seconds = day * SECONDS_A_DAY + hour * 3600 + number(MINUTE) * 60 + number(SECOND);
    let today = (seconds.div_euclid(SECONDS_A_DAY) + 4).rem_euclid(7);
    let shift = (number(WEEKDAY) - 1 - today).rem_euclid(7) as u8;
    (seconds, shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCD: Format = Format { binary: false, day_has_24: true };

    #[test]
    fn known_instants() {
        // date -u -d @N '+%S %M %H %w %d %m %y %C', weekday plus one.
        for (at, want) in [
            (0, [0x00, 0x00, 0x00, 5, 0x01, 0x01, 0x70, 0x19]),
            (951_782_399, [0x59, 0x59, 0x23, 2, 0x28, 0x02, 0x00, 0x20]),
            (951_782_400, [0x00, 0x00, 0x00, 3, 0x29, 0x02, 0x00, 0x20]),
            (1_795_564_800, [0x00, 0x00, 0x00, 4, 0x25, 0x11, 0x26, 0x20]),
            (4_107_542_399, [0x59, 0x59, 0x23, 1, 0x28, 0x02, 0x00, 0x21]),
            (4_107_542_400, [0x00, 0x00, 0x00, 2, 0x01, 0x03, 0x00, 0x21]),
        ] {
            assert_eq!(fields(at, 0, BCD), want, "{at}");
            assert_eq!(seconds(&want, BCD), (at, 0), "{at}");
        }
    }

    #[test]
    fn every_format_comes_back() {
        for binary in [false, true] {
            for day_has_24 in [false, true] {
                let format = Format { binary, day_has_24 };
                for i in 0..5_000 {
                    let at = i * 500_009;
                    let shift = (i % 7) as u8;
                    assert_eq!(seconds(&fields(at, shift, format), format), (at, shift));
                }
            }
        }
    }

    #[test]
    fn twelve_hours() {
        let format = Format { binary: false, day_has_24: false };
        let hours: Vec<u8> = [0, 1, 11, 12, 13, 23].map(|h| format.encode_hour(h)).into();
        assert_eq!(hours, [0x12, 0x01, 0x11, 0x92, 0x81, 0x91]);
    }
}
