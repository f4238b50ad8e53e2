//! The rows of a file: NDJSON or CSV, read a line at a time, each checked by the definition of its resource or its dictionary.
//!
//! `exchange import` reads with it. It holds one row at a time and writes nothing.

use std::fmt;
use std::io::{self, BufRead, Read as _};

use schemas::codes::Rule;
use schemas::dictionary::List;
use schemas::resource::{Fault, Field, Resource};
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Longest row as it stands in a file, bytes with its line end: a row that the exchange takes is shorter, however it is escaped.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
const ROW_FORM: &str = "an object of text values, on one line";
const MARK: &[u8] = b"\xef\xbb\xbf";

/// How a file holds rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// A JSON object of text values on each line.
    Ndjson,
    /// Values with commas between them (RFC 4180), behind a line of field keys.
    Csv,
}

/// The form that rows have.
pub(super) trait Shape {
    /// The fields that a row may have.
    fn fields(&self) -> &[Field];

    /// Everything that is wrong with a row.
    fn faults(&self, row: &Pairs) -> Vec<Fault>;
}

impl Shape for Resource {
    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn faults(&self, row: &Pairs) -> Vec<Fault> {
        self.row_faults(row)
    }
}

/// Rows of a dictionary, or mappings.
pub(super) struct Listed {
    pub(super) list: List,
    pub(super) fields: Vec<Field>,
}

impl Shape for Listed {
    fn fields(&self) -> &[Field] {
        &self.fields
    }

    fn faults(&self, row: &Pairs) -> Vec<Fault> {
        self.list.row_faults(row)
    }
}

/// The fields of a row with their values, in the order of the file.
pub(super) type Pairs = Vec<(String, String)>;

/// A row with its line, or why the line has none.
pub(super) struct Found {
    /// The line on which it begins, from 1.
    pub(super) line: u64,
    /// The row.
    pub(super) row: Read,
}

/// A row, or why there is none.
type Read = Result<Pairs, Vec<Wrong>>;

/// Why a row is not like that.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Wrong {
    /// The field; empty for the row as a whole.
    pub(super) field: String,
    /// Its name in the contract.
    pub(super) rule: String,
    /// The right form.
    pub(super) allowed: String,
}

impl Wrong {
    pub(super) fn row(rule: Rule, allowed: impl Into<String>) -> Self {
        Self { field: String::new(), rule: rule.name().to_owned(), allowed: allowed.into() }
    }

    /// A fault by its pointer into a row. A member that is no field may have any name, so it is told by its place.
    fn of(Fault { pointer, rule, form }: Fault, row: &Pairs) -> Self {
        let named = pointer.trim_start_matches('/');
        let place = named.parse::<usize>().ok().filter(|_| rule == Rule::UnknownMember);
        let field = place.map_or_else(
            || named.to_owned(),
            |place| match row.get(place) {
                Some((key, _)) if is_shown(key) => key.clone(),
                _ => format!("member {}", place + 1),
            },
        );
        Self { field, rule: rule.name().to_owned(), allowed: form }
    }
}

/// Whether a key is like that of a field, and no number of a person.
fn is_shown(key: &str) -> bool {
    key.len() <= 64
        && key.starts_with(|first: char| first.is_ascii_lowercase())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Why a file is read no further.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A line behind which nothing can be told apart.
    #[error("line {line}: {why}")]
    Line {
        /// The line.
        line: u64,
        /// The fault of it.
        why: String,
    },
}

/// The rows of a file.
pub(super) struct Rows<'r, R> {
    lines: Lines<R>,
    shape: &'r dyn Shape,
    /// The keys of a CSV file's columns; `None` for NDJSON.
    columns: Option<Vec<String>>,
    raw: Vec<u8>,
}

impl<'r, R: BufRead> Rows<'r, R> {
    /// Reads the head of a CSV file, which names fields of the rows, the required ones among them.
    ///
    /// # Errors
    /// The file cannot be read, or has another head.
    pub(super) fn new(input: R, format: Format, shape: &'r dyn Shape) -> Result<Self, Broken> {
        let mut rows = Self { lines: Lines { input, number: 0 }, shape, columns: None, raw: Vec::new() };
        if format == Format::Csv {
            rows.columns = Some(rows.head()?);
        }
        Ok(rows)
    }

    fn head(&mut self) -> Result<Vec<String>, Broken> {
        let Some(line) = self.record()? else {
            return Err(Broken::Line { line: 1, why: "the file has no line of field keys".to_owned() });
        };
        let wrong = |why: String| Broken::Line { line, why };
        let read =
            values(&self.raw).map_err(|form| wrong(format!("the field keys have to be {}", form.allowed)))?;
        let known =
            || self.shape.fields().iter().map(|field| field.key.as_str()).collect::<Vec<_>>().join(", ");
        for (place, column) in read.iter().enumerate() {
            // A file without a head has a person's data there.
            let why = if !self.shape.fields().iter().any(|field| field.key == *column) {
                "is no field of the rows"
            } else if read.iter().take(place).any(|before| before == column) {
                "stands twice"
            } else {
                continue;
            };
            let number = place + 1;
            return Err(wrong(format!("column {number} {why}. The first line names fields: {}", known())));
        }
        let missing = self.shape.fields().iter().find(|field| field.required && !read.contains(&field.key));
        match missing {
            Some(field) => Err(wrong(format!("no column {}, which each row has", field.key))),
            None => Ok(read),
        }
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read, or is cut off.
    pub(super) fn next(&mut self) -> Result<Option<Found>, Broken> {
        let (line, pairs) = match self.columns.take() {
            Some(columns) => {
                let next = self.record()?.map(|line| (line, self.row(&columns)));
                self.columns = Some(columns);
                match next {
                    None => return Ok(None),
                    Some(next) => next,
                }
            }
            None => match self.object()? {
                None => return Ok(None),
                Some(next) => next,
            },
        };
        if pairs.as_ref().is_err_and(|wrong| wrong.iter().any(|wrong| wrong.field.is_empty()))
            && is_cut(&self.raw)
        {
            return Err(cut(line));
        }
        let row = pairs.and_then(|pairs| {
            let faults = self.shape.faults(&pairs);
            if faults.is_empty() {
                return Ok(pairs);
            }
            Err(faults.into_iter().map(|fault| Wrong::of(fault, &pairs)).collect())
        });
        Ok(Some(Found { line, row }))
    }

    /// The next object, with its line.
    fn object(&mut self) -> Result<Option<(u64, Read)>, Broken> {
        loop {
            self.raw.clear();
            let Some(whole) = self.lines.read(&mut self.raw)? else { return Ok(None) };
            let line = self.lines.number;
            if !whole {
                // Its end is not in `raw`, and it is not cut off.
                self.raw.push(b'\n');
                return Ok(Some((line, Err(vec![too_long()]))));
            }
            if !self.raw.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some((line, object(&self.raw))));
            }
        }
    }

    /// Reads the lines of the next record into `raw`; gives the first of them.
    fn record(&mut self) -> Result<Option<u64>, Broken> {
        self.raw.clear();
        let (mut first, mut is_open) = (None, false);
        loop {
            let start = self.raw.len();
            let Some(whole) = self.lines.read(&mut self.raw)? else {
                return first.map_or(Ok(None), |line| Err(cut(line)));
            };
            let line = *first.get_or_insert(self.lines.number);
            if !whole || self.raw.len() > MAX_BYTES {
                let why = format!("a row of more than {MAX_BYTES} bytes, or a quote that nothing closes");
                return Err(Broken::Line { line, why });
            }
            if start == 0 && self.raw.iter().all(u8::is_ascii_whitespace) {
                self.raw.clear();
                first = None;
                continue;
            }
            // A line end between quotes is a part of the value.
            let quotes = self.raw.iter().skip(start).filter(|byte| **byte == b'"').count();
            is_open ^= quotes % 2 == 1;
            if !is_open {
                return Ok(Some(line));
            }
        }
    }

    fn row(&self, columns: &[String]) -> Read {
        let read = values(&self.raw).map_err(|wrong| vec![wrong])?;
        if read.len() != columns.len() {
            let form = format!("{} values, as many as the first line names", columns.len());
            return Err(vec![Wrong::row(Rule::Count, form)]);
        }
        // CSV has no other way to say that there is no value.
        let there = columns.iter().cloned().zip(read).filter(|(_, value)| !value.is_empty());
        Ok(there.collect())
    }
}

/// Whether a line has no end, so that it is the last one: where it is no row, nobody knows what is missing behind it.
fn is_cut(line: &[u8]) -> bool {
    !line.ends_with(b"\n")
}

fn cut(line: u64) -> Broken {
    Broken::Line { line, why: "the file is cut off here".to_owned() }
}

fn too_long() -> Wrong {
    Wrong::row(Rule::Length, format!("at most {MAX_BYTES} bytes"))
}

/// Values of a CSV record.
fn values(raw: &[u8]) -> Result<Vec<String>, Wrong> {
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.has_headers(false).flexible(true).buffer_capacity(raw.len()).from_reader(raw);
    let mut record = csv::ByteRecord::new();
    let form =
        || Wrong::row(Rule::Pattern, "values with commas between them, quotes around whole values only");
    if !reader.read_byte_record(&mut record).map_err(|_| form())? {
        return Err(form());
    }
    let more = reader.read_byte_record(&mut csv::ByteRecord::new());
    if more.unwrap_or(true) {
        return Err(form());
    }
    let texts = record.iter().map(|value| std::str::from_utf8(value).map(str::to_owned));
    texts.collect::<Result<_, _>>().map_err(|_| Wrong::row(Rule::Text, "UTF-8"))
}

/// The members of a JSON object, in their order, those that stand twice too.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ROW_FORM)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

fn object(raw: &[u8]) -> Read {
    let text = std::str::from_utf8(raw).map_err(|_| vec![Wrong::row(Rule::Text, "UTF-8")])?;
    let Members(members) =
        serde_json::from_str(text).map_err(|_| vec![Wrong::row(Rule::Pattern, ROW_FORM)])?;
    let (mut pairs, mut wrong) = (Pairs::new(), Vec::new());
    for (place, (key, value)) in members.into_iter().enumerate() {
        match value {
            Value::String(value) => pairs.push((key, value)),
            _ => {
                let field = if is_shown(&key) { key } else { format!("member {}", place + 1) };
                let allowed = "a text; where there is no value, no member".to_owned();
                wrong.push(Wrong { field, rule: Rule::Type.name().to_owned(), allowed });
            }
        }
    }
    if wrong.is_empty() { Ok(pairs) } else { Err(wrong) }
}

/// The lines of a file.
struct Lines<R> {
    input: R,
    /// Number of the line that was read last, from 1.
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// Appends the next line with its end. Whether it is whole: of one that is too long the front alone is given; `None` at the end
    /// of the file.
    fn read(&mut self, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
        let start = line.len();
        let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
        if self.input.by_ref().take(most).read_until(b'\n', line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let whole = line.len() - start < MAX_BYTES || line.ends_with(b"\n");
        if !whole {
            self.input.skip_until(b'\n')?;
        }
        if self.number == 1 && line.starts_with(MARK) {
            line.drain(..MARK.len());
        }
        Ok(Some(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource() -> Resource {
        Resource::samples().remove(0)
    }

    /// Each line with its row, or with what is wrong; a file that is read no further ends with its error.
    fn read(text: impl AsRef<[u8]>, format: Format) -> Vec<String> {
        let resource = resource();
        let mut found = Vec::new();
        let mut rows = match Rows::new(text.as_ref(), format, &resource) {
            Ok(rows) => rows,
            Err(error) => return vec![error.to_string()],
        };
        loop {
            match rows.next() {
                Ok(None) => return found,
                Ok(Some(Found { line, row: Ok(pairs) })) => {
                    let values: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    found.push(format!("{line} {}", values.join(" ")));
                }
                Ok(Some(Found { line, row: Err(wrong) })) => {
                    let wrong: Vec<_> =
                        wrong.iter().map(|wrong| format!("{}:{}", wrong.field, wrong.rule)).collect();
                    found.push(format!("{line} {}", wrong.join(" ")));
                }
                Err(error) => {
                    found.push(error.to_string());
                    return found;
                }
            }
        }
    }

    const GOOD: &str = r#"{"idNumber":"44010619680523000X","name":"测试","regionCode":"44","status":"1"}"#;
    const SHOWN: &str = "idNumber=44010619680523000X name=测试 regionCode=44 status=1";
    const HEAD: &str = "idNumber,name,regionCode,status,address";

    #[test]
    fn lines_keep_their_numbers_over_marks_empty_lines_and_line_ends() {
        let (two, three) = (format!("2 {SHOWN}"), format!("4 {SHOWN}"));
        let text = format!("\u{feff}\r\n{GOOD}\r\n \r\n{GOOD}");
        assert_eq!(read(&text, Format::Ndjson), [&*two, &*three]);
        let row = "44010619680523000X,测试,44,1,";
        for end in ["\n", "\r\n"] {
            let text = format!("\u{feff}{HEAD}{end}{row}{end}{end}{row}{end}");
            assert_eq!(read(&text, Format::Csv), [&*two, &*three]);
        }
        let quoted = format!("{HEAD}\n44010619680523000X,\"测,\"\"试\",44,1,\"a\"\n{row}");
        assert_eq!(
            read(&quoted, Format::Csv),
            [
                "2 idNumber=44010619680523000X name=测,\"试 regionCode=44 status=1 address=a",
                &*format!("3 {SHOWN}")
            ]
        );
        // A value over two lines is no text of the contract, and the next row keeps its line.
        let over = format!("{HEAD}\n44010619680523000X,\"测\n试\",44,1,\n{row}\n");
        assert_eq!(read(&over, Format::Csv), ["2 name:text", &*format!("4 {SHOWN}")]);
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_field_and_never_by_value() {
        let line = |text: &str| read(format!("{text}\n"), Format::Ndjson);
        assert_eq!(line("[]"), ["1 :pattern"]);
        assert_eq!(line("{"), ["1 :pattern"]);
        assert_eq!(line(&GOOD.replace("\"1\"", "1")), ["1 status:type"]);
        assert_eq!(
            line(&GOOD.replace("44010619680523000X", "440106196805230001")),
            ["1 idNumber:check-digit"]
        );
        assert_eq!(line(&GOOD.replace("status", "name")), ["1 name:duplicate-member status:required"]);
        assert_eq!(line(&GOOD.replace('}', r#","secret":"x"}"#)), ["1 secret:unknown-member"]);
        assert_eq!(line(&GOOD.replace('}', r#","44010619680523000X":"x"}"#)), ["1 member 5:unknown-member"]);
        assert_eq!(line(&GOOD.replace('}', r#","44010619680523000X":1}"#)), ["1 member 5:type"]);
        assert_eq!(read(b"{\"name\":\"\xb2\xe2\"}\n", Format::Ndjson), ["1 :text"]);
        let long = format!("{}\n{GOOD}\n", "x".repeat(3 * MAX_BYTES));
        assert_eq!(read(&long, Format::Ndjson), ["1 :length", &*format!("2 {SHOWN}")]);
        let rows =
            format!("{HEAD}\na,b\n44010619680523000X,a\"b\"c,44,1\"2\"3,\n44010619680523000X,,44,1,\n");
        assert_eq!(read(&rows, Format::Csv), ["2 :count", "3 status:length", "4 name:required"]);
        let stray = format!("{HEAD}\n44010619680523000X,a\"b,44,1,\n44010619680523000X,a\"b,44,1,\n");
        assert_eq!(read(&stray, Format::Csv), ["2 :pattern"]);
    }

    #[test]
    fn a_file_that_is_cut_off_ends_with_its_line() {
        let (front, _) = GOOD.split_at(40);
        let first = format!("1 {SHOWN}");
        assert_eq!(
            read(format!("{GOOD}\n{front}"), Format::Ndjson),
            [&*first, "line 2: the file is cut off here"]
        );
        // One that is read to its end is a row, or named like any other.
        assert_eq!(read(GOOD.replace("\"1\"", "1"), Format::Ndjson), ["1 status:type"]);
        let first = format!("2 {SHOWN}");
        for rest in ["44010619680523000X,测", "44010619680523000X,\"测", "44010619680523000X,\"测,44,1,\n\n"]
        {
            let text = format!("{HEAD}\n44010619680523000X,测试,44,1,\n{rest}");
            assert_eq!(read(&text, Format::Csv), [&*first, "line 3: the file is cut off here"]);
        }
        let open = format!("{HEAD}\n44010619680523000X,\"{}", "x\n".repeat(MAX_BYTES));
        assert!(read(&open, Format::Csv)[0].starts_with("line 2: a row of more than"));
    }

    #[test]
    fn a_csv_file_begins_with_fields_of_the_resource() {
        let head = |text: &str| read(text, Format::Csv);
        assert_eq!(head(""), ["line 1: the file has no line of field keys"]);
        let told = head("44010619680523000X,测试,44,1,\n");
        assert!(
            told[0].starts_with("line 1: column 1 is no field of the rows. ") && !told[0].contains("测试")
        );
        assert!(
            head("idNumber,name,regionCode,status,name\n")[0].starts_with("line 1: column 5 stands twice")
        );
        assert_eq!(head("idNumber,name,regionCode\n"), ["line 1: no column status, which each row has"]);
        assert_eq!(head("\nidNumber,name,regionCode\n"), ["line 2: no column status, which each row has"]);
        assert_eq!(head("idNumber,name,regionCode,status\n"), [""; 0]);
    }
}
