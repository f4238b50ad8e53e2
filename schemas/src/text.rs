//! One rule for all text of people and places: names, addresses, causes, certificate numbers.
//!
//! [`read`] is the rule at the edge, [`fold`] the form in which two texts are compared. Section 1 of the formats has
//! both as tables. Stored and signed text is never folded.
//!
//! Pure functions; nothing to lose.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization as _, is_nfc};

/// Why a text is none. Says nothing of the text but a place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// No character.
    #[error("a text has at least one character")]
    Empty,
    /// Too many characters.
    #[error("the text has more than {max} characters")]
    TooLong {
        /// Most characters.
        max: usize,
    },
    /// A character that no text has, or not at this place.
    #[error("the text holds a {} at place {place}", .class.name())]
    Character {
        /// The kind of character.
        class: Class,
        /// Its place, from 1.
        place: usize,
    },
}

/// Kinds of characters that no text of people and places has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A control character (U+0000 to U+001F, U+007F to U+009F): a tab and a line feed too.
    Control,
    /// A character that turns the direction of writing: marks, embeddings, overrides and isolates.
    BidiControl,
    /// A character that takes no room and shows nothing: zero-width characters, fillers, tags.
    ZeroWidth,
    /// U+2028 and U+2029.
    LineSeparator,
    /// A blank at either end.
    EdgeBlank,
    /// A variation selector behind something that has no variants.
    LoneSelector,
    /// A non-character, or U+FFFD, which stands where a conversion lost what was written.
    Damaged,
}

impl Class {
    /// Every class.
    pub const ALL: &[Self] = &[
        Self::Control,
        Self::BidiControl,
        Self::ZeroWidth,
        Self::LineSeparator,
        Self::EdgeBlank,
        Self::LoneSelector,
        Self::Damaged,
    ];

    /// The stable name, as clients see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::BidiControl => "bidi-control",
            Self::ZeroWidth => "zero-width",
            Self::LineSeparator => "line-separator",
            Self::EdgeBlank => "edge-blank",
            Self::LoneSelector => "lone-variation-selector",
            Self::Damaged => "damaged",
        }
    }
}

/// Reads a text at the edge: composed ([`nfc`]), of 1 to `max_chars` characters, none of them of a [`Class`].
///
/// # Errors
/// [`TextError`], the first that applies.
pub fn read(text: &str, max_chars: usize) -> Result<Cow<'_, str>, TextError> {
    let read = if is_plain(text) {
        Cow::Borrowed(text)
    } else {
        if text.is_empty() {
            return Err(TextError::Empty);
        }
        if let Some((class, place)) = unfit(text) {
            return Err(TextError::Character { class, place });
        }
        nfc(text)
    };
    // No text has more characters than bytes.
    if read.len() <= max_chars || read.chars().count() <= max_chars {
        Ok(read)
    } else {
        Err(TextError::TooLong { max: max_chars })
    }
}

/// Whether a text is one as it stands, whatever its length.
pub fn is_text(text: &str) -> bool {
    matches!(read(text, usize::MAX), Ok(Cow::Borrowed(_)))
}

/// The text in Unicode Normalization Form C. Compatibility ideographs stay what they are: the form would replace a rare
/// character of a name by another one.
pub fn nfc(text: &str) -> Cow<'_, str> {
    if is_ideographic(text) || is_nfc(text) {
        return Cow::Borrowed(text);
    }
    let mut composed = String::with_capacity(text.len());
    for piece in text.split_inclusive(is_compatibility_ideograph) {
        match piece.char_indices().next_back() {
            Some((end, last)) if is_compatibility_ideograph(last) => {
                composed.extend(piece[..end].nfc());
                composed.push(last);
            }
            _ => composed.extend(piece.nfc()),
        }
    }
    if composed == text { Cow::Borrowed(text) } else { Cow::Owned(composed) }
}

/// How two values of a kind are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// Names of people and organisations.
    Name,
    /// Numbers and codes, whose letters have one case and whose blanks mean nothing.
    Number,
    /// Free text and addresses.
    Text,
}

/// The comparison form: two values that differ only in how they were typed have the same one.
pub fn fold(comparison: Comparison, text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut blank = false;
    for character in text.chars().filter(|character| !is_variation_selector(*character)).map(narrow).nfc() {
        if character.is_whitespace() {
            blank = true;
            continue;
        }
        let character = match comparison {
            Comparison::Name => name_sign(character),
            Comparison::Number => number_sign(character).to_ascii_uppercase(),
            Comparison::Text => character,
        };
        let before = folded.chars().next_back();
        if std::mem::take(&mut blank) && before.is_some_and(|before| parts(comparison, before, character)) {
            folded.push(' ');
        }
        folded.push(character);
    }
    // Two characters that a blank stood between may be one now.
    if is_ideographic(&folded) { folded } else { folded.nfc().collect() }
}

/// Whether blanks between two characters part them. Between two ideographs, and beside a middle dot, they only set a name.
fn parts(comparison: Comparison, before: char, behind: char) -> bool {
    match comparison {
        Comparison::Number => false,
        Comparison::Text => true,
        Comparison::Name => {
            !(is_ideograph(before) && is_ideograph(behind) || before == MIDDLE_DOT || behind == MIDDLE_DOT)
        }
    }
}

/// Stands in names between the parts of a name.
pub(crate) const MIDDLE_DOT: char = '·';

/// Full-width forms as the ASCII that they stand for, brackets of one use as one pair.
const fn narrow(character: char) -> char {
    match character {
        '\u{ff01}'..='\u{ff5e}' => match char::from_u32(character as u32 - 0xfee0) {
            Some(narrow) => narrow,
            None => character,
        },
        '\u{3014}' | '\u{3010}' => '[',
        '\u{3015}' | '\u{3011}' => ']',
        other => other,
    }
}

/// The middle dots and the apostrophes of names as one each.
const fn name_sign(character: char) -> char {
    match character {
        '.' | '\u{2022}' | '\u{2024}' | '\u{2027}' | '\u{2219}' | '\u{22c5}' | '\u{2e31}' | '\u{30fb}'
        | '\u{ff65}' => MIDDLE_DOT,
        '\u{2018}' | '\u{2019}' | '\u{2bc}' | '\u{2bb}' | '\u{b4}' | '`' => '\'',
        other => other,
    }
}

/// The dashes of numbers as one.
const fn number_sign(character: char) -> char {
    match character {
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' => '-',
        other => other,
    }
}

/// Whether the text is nothing but printable ASCII and characters of U+4000 to U+9FFF, without a blank at its ends. None of them
/// is of a class or changes when composed. Each use context has six texts, so the bytes are looked at several at once: no
/// other character has only such bytes.
fn is_plain(text: &str) -> bool {
    let ends = [text.as_bytes().first(), text.as_bytes().last()];
    !ends.into_iter().any(|end| end.is_none_or(|byte| *byte == b' ')) && is_ideographic(text)
}

fn is_ideographic(text: &str) -> bool {
    let other = |byte: u8| byte < 0x20 || byte == 0x7f || (0xc0..0xe4).contains(&byte) || byte > 0xe9;
    !text.bytes().fold(false, |found, byte| found | other(byte))
}

/// The first character that no text has, with its place from 1.
fn unfit(text: &str) -> Option<(Class, usize)> {
    let mut before = None;
    for (character, place) in text.chars().zip(1..) {
        if let Some(class) = class_of(character, before) {
            return Some((class, place));
        }
        before = Some(character);
    }
    let edge = |place| Some((Class::EdgeBlank, place));
    if text.starts_with(char::is_whitespace) {
        edge(1)
    } else if text.ends_with(char::is_whitespace) {
        edge(text.chars().count())
    } else {
        None
    }
}

fn class_of(character: char, before: Option<char>) -> Option<Class> {
    Some(match character {
        _ if character.is_control() => Class::Control,
        '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}' => {
            Class::BidiControl
        }
        '\u{2028}'..='\u{2029}' => Class::LineSeparator,
        _ if is_variation_selector(character) => {
            return (!before.is_some_and(|base| has_variants(base, character)))
                .then_some(Class::LoneSelector);
        }
        // Between letters of Mongolian this one is written.
        '\u{180e}' if before.is_some_and(is_mongolian) => return None,
        '\u{ad}'
        | '\u{34f}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200d}'
        | '\u{2060}'..='\u{2065}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e00ff}'
        | '\u{e01f0}'..='\u{e0fff}' => Class::ZeroWidth,
        '\u{fdd0}'..='\u{fdef}' | '\u{fffd}' => Class::Damaged,
        _ if (character as u32) & 0xfffe == 0xfffe => Class::Damaged,
        _ => return None,
    })
}

/// Whether the standard, or a sequence that was registered for a name, may give a character this selector.
fn has_variants(base: char, selector: char) -> bool {
    match selector {
        '\u{180b}'..='\u{180f}' => is_mongolian(base),
        _ => is_ideograph(base),
    }
}

const fn is_variation_selector(character: char) -> bool {
    matches!(character,
        '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

const fn is_mongolian(character: char) -> bool {
    matches!(character, '\u{1807}' | '\u{1820}'..='\u{1878}' | '\u{1880}'..='\u{18aa}')
}

/// Ideographs, the compatibility ones and those of private use too.
const fn is_ideograph(character: char) -> bool {
    matches!(character,
        '\u{3007}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{e000}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}' | '\u{f0000}'..)
}

const fn is_compatibility_ideograph(character: char) -> bool {
    matches!(character, '\u{f900}'..='\u{faff}' | '\u{2f800}'..='\u{2fa1f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn class(text: &str) -> Option<(&'static str, usize)> {
        match read(text, 100) {
            Err(TextError::Character { class, place }) => Some((class.name(), place)),
            read => {
                read.unwrap();
                None
            }
        }
    }

    #[test]
    fn rare_characters_of_names_are_taken_as_they_are() {
        for name in [
            "王\u{e863}",
            "\u{20bb7}田",
            "\u{2a6d7}\u{2b739}\u{2ceb0}\u{30edd}\u{31350}\u{323af}",
            "\u{100000}",
            "葛\u{e0100}城",
            "\u{20bb7}\u{e0101}",
            "\u{fa30}\u{fe00}",
            "张\u{3000}三",
            "买买提·阿不都",
            "扎西·དཀྱིལ",
            "ᠮᠣᠩᠭᠣᠯ",
            "ᠠ\u{180b}\u{202f}ᠶ\u{180e}ᠠ",
            "مۇھەممەت",
            "〇",
            "\u{f900}",
            "\u{2f800}",
            "O’Neil",
            "a\u{a0}b",
        ] {
            assert_eq!(read(name, 100), Ok(Cow::Borrowed(name)), "{name:?}");
            assert!(is_text(name));
        }
    }

    #[test]
    fn what_shows_nothing_or_other_than_it_is_is_refused_by_name() {
        for (text, name, place) in [
            ("张\u{0}", "control", 2),
            ("张\t三", "control", 2),
            ("a\u{85}b", "control", 2),
            ("张\u{202e}三", "bidi-control", 2),
            ("\u{2066}张\u{2069}", "bidi-control", 1),
            ("张\u{200f}", "bidi-control", 2),
            ("张\u{200b}三", "zero-width", 2),
            ("张\u{200d}三", "zero-width", 2),
            ("\u{feff}张三", "zero-width", 1),
            ("张三\u{2060}", "zero-width", 3),
            ("a\u{ad}b", "zero-width", 2),
            ("\u{3164}", "zero-width", 1),
            ("a\u{e0041}", "zero-width", 2),
            ("张\u{2028}三", "line-separator", 2),
            (" 张三", "edge-blank", 1),
            ("张三\u{3000}", "edge-blank", 3),
            ("\u{a0}", "edge-blank", 1),
            ("  ", "edge-blank", 1),
            ("a\u{fe0f}", "lone-variation-selector", 2),
            ("\u{e0100}葛", "lone-variation-selector", 1),
            ("葛\u{e0100}\u{e0101}", "lone-variation-selector", 3),
            ("张\u{fffd}", "damaged", 2),
            ("张\u{ffff}", "damaged", 2),
            ("\u{3fffe}", "damaged", 1),
        ] {
            assert_eq!(class(text), Some((name, place)), "{text:?}");
        }
        assert_eq!(read("", 5), Err(TextError::Empty));
        assert_eq!(read("证证证证证证", 5), Err(TextError::TooLong { max: 5 }));
        assert_eq!(read("证证证证证", 5), Ok(Cow::Borrowed("证证证证证")));
        // Counted as it is stored.
        assert_eq!(read("e\u{301}e\u{301}", 2).as_deref(), Ok("éé"));
    }

    #[test]
    fn compatibility_ideographs_stay_in_what_is_composed() {
        assert_eq!(nfc("e\u{301}\u{f900}\u{301}e\u{301}"), "é\u{f900}\u{301}é");
        assert_eq!(nfc("\u{212b}"), "Å");
    }

    #[test]
    fn values_that_differ_in_typing_have_one_form() {
        use Comparison::{Name, Number, Text};
        for (comparison, one, other) in [
            (Name, "测试（北京）有限公司", "测试(北京)有限公司"),
            (Name, "买买提·阿不都", "买买提・阿不都"),
            (Name, "买买提·阿不都", "买买提•阿不都"),
            (Name, "买买提·阿不都", "买买提‧阿不都"),
            (Name, "买买提·阿不都", "买买提．阿不都"),
            (Name, "买买提·阿不都", "买买提 · 阿不都"),
            (Name, "买买提·阿不都", "买买提･阿不都"),
            (Name, "张三", " 张\u{3000}三 "),
            (Name, "John  Smith", "John Smith"),
            (Name, "José", "Jose\u{301}"),
            (Name, "葛城", "葛\u{e0100}城"),
            (Name, "O'Neil", "O’Neil"),
            (Name, "\u{fa19}", "神"),
            (Number, "jy-1101 01", "JY－110101"),
            (Number, "京〔2020〕1号", "京［２０２０］1号"),
            (Number, "a—1", "A-1"),
            (Text, "测试路１号（东）", " 测试路1号(东)"),
            (Text, "甲  乙", "甲\u{3000}乙"),
        ] {
            assert_eq!(fold(comparison, one), fold(comparison, other), "{one} {other}");
        }
        for (comparison, one, other) in [
            (Name, "张三", "张四"),
            (Name, "John Smith", "JohnSmith"),
            (Name, "ab", "AB"),
            (Number, "10²", "102"),
            (Number, "A1", "A-1"),
            (Number, "Ａ１", "A2"),
            (Text, "甲乙", "甲 乙"),
            (Text, "3.5", "3·5"),
        ] {
            assert_ne!(fold(comparison, one), fold(comparison, other), "{one} {other}");
        }
        assert_eq!(fold(Number, "JY11101010000001"), "JY11101010000001");
    }

    proptest! {
        #[test]
        fn reading_and_folding_twice_change_nothing(text in any::<String>(), hans in "[一-龥· （）\u{e0100}a-zé\u{301}]{0,12}") {
            for text in [text, hans] {
                if let Ok(once) = read(&text, 1_000) {
                    prop_assert_eq!(read(&once, 1_000), Ok(once.clone()));
                    prop_assert!(is_text(&once));
                }
                for comparison in [Comparison::Name, Comparison::Number, Comparison::Text] {
                    let once = fold(comparison, &text);
                    prop_assert_eq!(fold(comparison, &once), once.clone());
                    prop_assert_eq!(fold(comparison, &nfc(&text)), once);
                }
            }
        }

        #[test]
        fn the_short_way_says_what_the_long_way_says(text in "[ -~一-龥\u{3000}é\u{200b}]{1,8}") {
            prop_assert_eq!(is_plain(&text) && unfit(&text).is_some(), false);
            if is_plain(&text) {
                prop_assert_eq!(text.nfc().collect::<String>(), text);
            }
        }
    }
}
