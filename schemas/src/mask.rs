//! How values are masked (脱敏): of shared records by the level of their field, of licenses as their type says.
//!
//! Pure functions; nothing to lose. All that show a value ask here.

use serde::{Deserialize, Serialize};

/// The part of a masked value that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Show {
    /// Both ends, at most four characters each.
    Ends,
    /// Nothing, not even its length.
    Nothing,
}

impl Show {
    /// The value as it is shown.
    pub fn of(self, value: &str) -> String {
        if self == Self::Nothing {
            return "****".to_owned();
        }
        let length = value.chars().count();
        let shown = (length / 4).min(4);
        let front = if length > 1 { shown.max(1) } else { 0 };
        let masked = value
            .chars()
            .enumerate()
            .map(|(place, character)| if place < front || place >= length - shown { character } else { '*' });
        masked.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_shows_no_more_than_it_says() {
        for (value, masked) in [
            ("44010619680523000X", "4401**********000X"),
            ("张三", "张*"),
            ("欧阳修德", "欧**德"),
            ("甲", "*"),
            ("", ""),
        ] {
            assert_eq!(Show::Ends.of(value), masked);
        }
        assert_eq!(Show::Nothing.of("x"), Show::Nothing.of("a much longer text"));
    }
}
