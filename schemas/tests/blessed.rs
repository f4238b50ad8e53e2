//! Files that are made from tables and fragments, and kept: `cargo xtask bless` writes them anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemas::codes::{Code, Decision};
use schemas::routes::Route;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A JSON value with its members in the order of the text.
#[derive(Clone, Deserialize, Serialize)]
#[serde(untagged)]
enum Node {
    Object(Members),
    List(Vec<Self>),
    Leaf(serde_json::Value),
}

#[derive(Clone, Default)]
struct Members(Vec<(String, Node)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Members::default();
                while let Some((name, value)) = map.next_entry()? {
                    members.add(name, value);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Members {
    fn add(&mut self, name: String, value: Node) {
        assert!(self.get(&name).is_none(), "{name} stands twice");
        self.0.push((name, value));
    }

    fn get(&self, name: &str) -> Option<&Node> {
        self.0.iter().find(|(have, _)| have == name).map(|(_, value)| value)
    }

    /// The object of a name, taken out.
    fn remove(&mut self, name: &str) -> Self {
        let at = self.0.iter().position(|(have, _)| have == name);
        match at.map(|at| self.0.remove(at).1) {
            Some(Node::Object(object)) => object,
            _ => unreachable!("there is an object {name}"),
        }
    }

    /// The object of a name, made where there is none.
    fn object(&mut self, name: &str) -> &mut Self {
        let at = self.0.iter().position(|(have, _)| have == name).unwrap_or_else(|| {
            self.add(name.to_owned(), Node::Object(Self::default()));
            self.0.len() - 1
        });
        let found = self.0.get_mut(at).map(|(_, value)| value);
        assert!(matches!(found, Some(Node::Object(_))), "{name} is no object");
        let Some(Node::Object(object)) = found else { unreachable!("just asserted") };
        object
    }
}

/// Adds the members of `more` that are missing, at every depth.
fn complete(members: &mut Members, more: &Members) {
    for (name, value) in &more.0 {
        match (members.0.iter_mut().find(|(have, _)| have == name), value) {
            (Some((_, Node::Object(have))), Node::Object(more)) => complete(have, more),
            (Some(_), _) => {}
            (None, value) => members.add(name.clone(), value.clone()),
        }
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(path: &Path) -> Members {
    let text = std::fs::read_to_string(path).expect("a fragment is text");
    let read = serde_json::from_str(&text);
    assert!(read.is_ok(), "{}: {:?}", path.display(), read.err());
    read.expect("just asserted")
}

/// `openapi.json` from its fragments: `base.json`, then every other file of the folder in the order of their names. Each
/// path gets what its listener has in common: `x-listeners` of `base.json`.
fn openapi() -> String {
    let folder = folder("openapi");
    let mut fragments: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the folder of the fragments")
        .map(|entry| entry.expect("a fragment").path())
        .filter(|path| path.file_name().is_some_and(|name| name != "base.json"))
        .collect();
    fragments.sort();
    let mut document = read(&folder.join("base.json"));
    let common = document.remove("x-listeners");
    for path in fragments {
        for (name, part) in read(&path).0 {
            match (name.as_str(), part) {
                ("tags", Node::List(tags)) => {
                    let place = document.0.iter_mut().find(|(have, _)| have == "tags");
                    let Some((_, Node::List(have))) = place else { unreachable!("base.json lists tags") };
                    have.extend(tags);
                }
                ("paths", Node::Object(paths)) => {
                    let have = document.object("paths");
                    for (path, item) in paths.0 {
                        let Node::Object(mut item) = item else { unreachable!("{path} is an object") };
                        let Some(Node::Leaf(listener)) = item.get("x-listener") else {
                            unreachable!("{path} names its listener")
                        };
                        let Some(Node::Object(common)) = common.get(listener.as_str().unwrap_or_default())
                        else {
                            unreachable!("{path} has a listener of base.json")
                        };
                        complete(&mut item, common);
                        have.add(path, Node::Object(item));
                    }
                }
                ("components", Node::Object(components)) => {
                    for (kind, part) in components.0 {
                        let Node::Object(part) = part else { unreachable!("{kind} is an object") };
                        let have = document.object("components").object(&kind);
                        part.0.into_iter().for_each(|(name, value)| have.add(name, value));
                    }
                }
                (name, _) => {
                    unreachable!(
                        "{}: a fragment has tags, paths and components, and no {name}",
                        path.display()
                    )
                }
            }
        }
    }
    let mut text = serde_json::to_string_pretty(&document).expect("it was read from JSON");
    text.push('\n');
    text
}

/// Compares a file with what it should say, or writes it.
fn golden(name: &str, text: &str) {
    let path = folder(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).expect("the file can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).position(|(kept, made)| kept != made);
    let line = differs.unwrap_or_else(|| kept.lines().count().min(text.lines().count())) + 1;
    assert!(kept == text, "{name} is not what it is made from, from line {line} on: run `cargo xtask bless`");
}

#[test]
fn the_contract_is_made_from_its_fragments() {
    golden("openapi.json", &openapi());
}

#[test]
fn errors_page_is_made_from_the_tables() {
    golden("errors.md", &schemas::guidance::page());
}

/// Longest line of the lists of numbers, in characters.
const LINE: usize = 150;

/// The words in lines.
fn wrapped(words: &str) -> String {
    let mut lines = vec![String::new()];
    for word in words.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= LINE => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// The page with a paragraph in place of the one that begins with the same title.
fn with_list(page: &str, title: &str, rows: &BTreeMap<u16, &str>) -> String {
    let (before, rest) = page.split_once(&format!("\n\n{title}: ")).expect("the page has the list");
    let (_, after) = rest.split_once("\n\n").expect("something follows");
    let rows: Vec<String> = rows.iter().map(|(number, name)| format!("{number} {name}")).collect();
    let list = wrapped(&format!("{title}: {}.", rows.join(", ")));
    format!("{before}\n\n{list}\n\n{after}")
}

/// `README.md` lists all numbers, so that a checker can be written from the page alone.
#[test]
fn the_page_lists_every_number() {
    let page = std::fs::read_to_string(folder("README.md")).expect("the page");
    let routes = Route::ALL.iter().map(|one| (u16::from(one.number()), one.name())).collect();
    let kept = Route::ALL.iter().filter(|one| !one.is_use());
    let kept = kept.map(|one| (u16::from(one.number()), one.name())).collect();
    let decisions = Decision::ALL.iter().map(|one| (u16::from(one.number()), one.name())).collect();
    let codes = Code::ALL.iter().map(|one| (one.number(), one.name())).collect();
    let page = with_list(&page, "Routes", &routes);
    let page = with_list(&page, "Routes of class 1", &kept);
    let page = with_list(&page, "Decisions", &decisions);
    golden("README.md", &with_list(&page, "Public codes", &codes));
}
