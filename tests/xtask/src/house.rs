//! `cargo xtask house`: how the source tree stands to the architecture's targets. A report, no gate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde::Serialize;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// The enums whose `match` must name every variant.
const DOMAIN: &[&str] =
    &["Route", "About", "Subject", "Code", "Reason", "Proposed", "Kind", "DocumentKind", "Decision"];
/// The folders whose files say in their first lines who may touch them and what a crash leaves.
const TOLD: &[&str] = &[
    "exchange/src",
    "exchange/ledger/src",
    "exchange/client/src",
    "schemas/src",
    "verifier/src",
    "certs/src",
];
/// The words that begin no sentence of a comment.
const BAD_FIRST: &[&str] = &["Of", "What", "Who", "Whoever", "As"];

/// One measure: its definition, the value found, the value wanted, and the places.
#[derive(Serialize)]
struct Measure {
    name: &'static str,
    definition: &'static str,
    found: String,
    wanted: &'static str,
    places: Vec<String>,
}

/// One file: its path from the root of the tree, and its tokens with and without tests.
struct Source {
    path: String,
    text: String,
    syntax: syn::File,
    production: Vec<TokenTree>,
    tests: Vec<TokenTree>,
}

impl Source {
    fn read(path: &str, text: &str) -> anyhow::Result<Self> {
        let syntax = syn::parse_file(text).with_context(|| path.to_owned())?;
        let stream: TokenStream = text.parse().map_err(|error| anyhow::anyhow!("{path}: {error}"))?;
        let (mut production, mut tests) = (Vec::new(), Vec::new());
        let all: Vec<_> = stream.into_iter().collect();
        let whole = path.ends_with("/tests.rs") || path.contains("/tests/");
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            // `#[cfg(test)]` and what follows up to its braces or semicolon.
            let marked = matches!(rest, [TokenTree::Punct(p), TokenTree::Group(g), ..]
                if p.as_char() == '#' && g.stream().to_string().replace(' ', "") == "cfg(test)");
            let length =
                if marked { rest.iter().position(ends_item).map_or(rest.len(), |at| at + 1) } else { 1 };
            let into = if marked || whole { &mut tests } else { &mut production };
            into.extend(rest[..length].iter().cloned());
            rest = &rest[length..];
        }
        Ok(Self { path: path.to_owned(), text: text.to_owned(), syntax, production, tests })
    }

    /// Lines of the file less those of its test modules.
    fn lines(&self) -> usize {
        let mut lines = BTreeSet::new();
        flat(&self.production, &mut |_, line| {
            lines.insert(line);
        });
        lines.len()
    }
}

fn ends_item(token: &TokenTree) -> bool {
    match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    }
}

/// Says every identifier and mark in order, with its line.
fn flat(tokens: &[TokenTree], say: &mut impl FnMut(&str, usize)) {
    for token in tokens {
        if let TokenTree::Group(group) = token {
            say("", group.span_open().start().line);
            flat(&group.stream().into_iter().collect::<Vec<_>>(), say);
            say("", group.span_close().start().line);
        } else {
            say(&token.to_string(), token.span().start().line);
        }
    }
}

/// The words and lines behind the `::` of one of `owners`.
fn variants(tokens: &[TokenTree], owners: &[&str], found: &mut impl FnMut(&str, usize)) {
    let mut last = [String::new(), String::new(), String::new()];
    flat(tokens, &mut |word, line| {
        if last[1] == ":" && last[2] == ":" && owners.contains(&last[0].as_str()) {
            found(word, line);
        }
        last.rotate_left(1);
        word.clone_into(&mut last[2]);
    });
}

/// The variants of an enum that stands in `tokens` as an item or in a `numbered!` table.
fn declared(text: &str, name: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in text.lines().map(str::trim) {
        let begins = [format!("{name}: u"), format!("pub enum {name} "), format!("{name} {{")];
        if begins.iter().any(|begin| line.starts_with(begin)) {
            inside = true;
        } else if inside && line == "}" {
            break;
        } else if inside
            && let Some((variant, _)) = line.split_once(" = ")
            && variant.chars().all(char::is_alphanumeric)
        {
            names.push(variant.to_owned());
        }
    }
    names
}

/// Functions with their lengths, and wildcards.
#[derive(Default)]
struct Walk {
    functions: Vec<(usize, String, usize)>,
    wildcards: Vec<usize>,
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        a.path().is_ident("cfg") && a.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

impl<'a> Visit<'a> for Walk {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_expr_match(&mut self, item: &'a syn::ExprMatch) {
        let mut names = Names(false);
        for arm in &item.arms {
            names.visit_pat(&arm.pat);
        }
        if names.0 {
            let wild = item.arms.iter().filter(|arm| matches!(arm.pat, syn::Pat::Wild(_)));
            self.wildcards.extend(wild.map(|arm| arm.pat.span().start().line));
        }
        visit::visit_expr_match(self, item);
    }
}

impl Walk {
    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let first = signature.span().start().line;
        self.functions.push((block.span().end().line + 1 - first, signature.ident.to_string(), first));
    }
}

/// Whether a pattern names a variant of a domain enum.
struct Names(bool);

impl<'a> Visit<'a> for Names {
    fn visit_path(&mut self, path: &'a syn::Path) {
        let owner = path.segments.iter().rev().nth(1);
        self.0 |= owner.is_some_and(|owner| DOMAIN.iter().any(|name| owner.ident == name));
    }
}

type Module = Vec<String>;

/// Says every path and use tree as the words from its first segment on.
fn paths(tokens: &[TokenTree], prefix: &[String], say: &mut impl FnMut(&[String])) {
    let mut at = 0;
    while at < tokens.len() {
        let mut path = prefix.to_vec();
        let start = path.len();
        let mut grouped = false;
        while let Some(TokenTree::Ident(word)) = tokens.get(at) {
            path.push(word.to_string());
            at += 1;
            let colons = |n: usize| matches!(tokens.get(n), Some(TokenTree::Punct(p)) if p.as_char() == ':');
            if !(colons(at) && colons(at + 1)) {
                break;
            }
            at += 2;
            if let Some(TokenTree::Group(group)) = tokens.get(at) {
                paths(&group.stream().into_iter().collect::<Vec<_>>(), &path, say);
                grouped = true;
            }
        }
        if path.len() > start {
            // What stands in a group is said with its path; the path alone names nothing.
            if !grouped {
                say(&path);
            }
        } else {
            if let Some(TokenTree::Group(group)) = tokens.get(at) {
                paths(&group.stream().into_iter().collect::<Vec<_>>(), &[], say);
            }
            at += 1;
        }
    }
}

fn module(path: &str) -> Module {
    let inner = path.split_once("src/").map_or(path, |(_, inner)| inner).trim_end_matches(".rs");
    let mut module: Module = inner.split('/').map(str::to_owned).collect();
    if inner == "lib" || module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// The absolute path of a path in a module: what `crate`, `super` and `self` at its front stand for.
fn absolute(own: &Module, path: &[String]) -> Module {
    let (mut target, mut rest) = (own.clone(), path);
    while let Some((first, more)) = rest.split_first() {
        match first.as_str() {
            "crate" => target.clear(),
            "super" => drop(target.pop()),
            "self" => {}
            _ => break,
        }
        rest = more;
    }
    target.extend(rest.iter().cloned());
    target
}

/// The names that a file gives to items of other files (`pub use`), and what they stand for.
fn given_on(source: &Source, given: &mut BTreeMap<Module, Module>) {
    fn each(tree: &syn::UseTree, path: &mut Vec<String>, say: &mut impl FnMut(&[String], &str)) {
        match tree {
            syn::UseTree::Path(inner) => {
                path.push(inner.ident.to_string());
                each(&inner.tree, path, say);
                path.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| each(tree, path, say)),
            syn::UseTree::Name(name) => {
                path.push(name.ident.to_string());
                say(path, &name.ident.to_string());
                path.pop();
            }
            syn::UseTree::Rename(name) => {
                path.push(name.ident.to_string());
                say(path, &name.rename.to_string());
                path.pop();
            }
            syn::UseTree::Glob(_) => {}
        }
    }
    let own = module(&source.path);
    for item in &source.syntax.items {
        if let syn::Item::Use(item) = item
            && !matches!(item.vis, syn::Visibility::Inherited)
        {
            each(&item.tree, &mut Vec::new(), &mut |path, name| {
                let name = own.iter().cloned().chain([name.to_owned()]).collect();
                given.insert(name, absolute(&own, path));
            });
        }
    }
}

/// The files that reach themselves through other files. An item that a file only gives on counts for the file that
/// defines it.
fn circles(sources: &[&Source]) -> Vec<String> {
    let modules: BTreeMap<Module, usize> =
        sources.iter().enumerate().map(|(at, source)| (module(&source.path), at)).collect();
    let mut given = BTreeMap::new();
    sources.iter().for_each(|source| given_on(source, &mut given));
    let mut edges = vec![BTreeSet::new(); sources.len()];
    for (own, &at) in &modules {
        paths(&sources[at].production, &[], &mut |path| {
            let relative = !path.first().is_some_and(|first| ["crate", "super", "self"].contains(&&**first));
            let child = own.iter().chain(path.first()).cloned().collect::<Module>();
            if path.len() < 2 || (relative && !modules.keys().any(|module| module.starts_with(&child))) {
                return;
            }
            let mut target = absolute(own, path);
            // A name may be given on more than once; who gives in a circle is no concern of this.
            for _ in 0..4 {
                let Some((at, to)) = (1..=target.len()).find_map(|at| Some((at, given.get(&target[..at])?)))
                else {
                    break;
                };
                target = to.iter().chain(&target[at..]).cloned().collect();
            }
            while !modules.contains_key(&target) && target.pop().is_some() {}
            if let Some(&to) = modules.get(&target).filter(|&&to| to != at) {
                edges[at].insert(to);
            }
        });
    }
    let reaches_itself = |from: usize| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            next.extend(edges[file].iter().filter(|&&to| seen.insert(to)));
        }
        seen.contains(&from)
    };
    (0..sources.len()).filter(|&at| reaches_itself(at)).map(|at| sources[at].path.clone()).collect()
}

fn percentile(sorted: &[usize]) -> usize {
    sorted.get((sorted.len() * 95).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0)
}

fn collect(root: &Path, folder: &str, sources: &mut Vec<Source>) -> anyhow::Result<()> {
    let full = root.join(folder);
    let mut entries = std::fs::read_dir(&full)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| full.display().to_string())?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            if !path.ends_with("/generated") {
                collect(root, &path, sources)?;
            }
        } else if path.ends_with(".rs") {
            sources.push(Source::read(&path, &std::fs::read_to_string(entry.path())?)?);
        }
    }
    Ok(())
}

/// Places of a variant of `owners` outside the capability folders, by variant.
fn places(sources: &[Source], owners: &[&str], names: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.path.starts_with("exchange/src/capability/")) {
        // `Self` is such an enum only where one is defined.
        let defines = source.syntax.items.iter().any(
            |item| matches!(item, syn::Item::Enum(item) if owners.iter().any(|owner| item.ident == owner)),
        );
        let owners: Vec<_> = owners.iter().copied().chain(defines.then_some("Self")).collect();
        variants(&source.production, &owners, &mut |word, line| {
            if names.iter().any(|name| name == word) {
                places.entry(word.to_owned()).or_default().push(format!("{}:{line}", source.path));
            }
        });
    }
    places
}

fn files(places: &[String]) -> usize {
    places.iter().filter_map(|place| place.split(':').next()).collect::<BTreeSet<_>>().len()
}

fn most(places: BTreeMap<String, Vec<String>>) -> (String, Vec<String>) {
    let (name, places) = places.into_iter().max_by_key(|(_, places)| places.len()).unwrap_or_default();
    (format!("{name}: {} in {} files", places.len(), files(&places)), places)
}

/// Reasons that no test of `sources` names.
fn untested(sources: &[Source], reasons: &[String]) -> Vec<String> {
    let mut named = BTreeSet::new();
    for source in sources.iter().filter(|source| source.path.starts_with("exchange/src/")) {
        variants(&source.tests, &["Reason"], &mut |word, _| {
            named.insert(word.to_owned());
        });
    }
    reasons.iter().filter(|reason| !named.contains(*reason)).cloned().collect()
}

/// The sentences of a text's comments outside its test module, each with the line on which its paragraph begins.
fn sentences(text: &str) -> Vec<(usize, String)> {
    let production = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut paragraphs: Vec<(usize, String)> = Vec::new();
    let (mut code, mut goes_on) = (false, false);
    for (line, number) in production.lines().zip(1..) {
        let comment = line.trim_start().strip_prefix("//").map(|c| c.trim_start_matches(['/', '!']).trim());
        let words = comment.unwrap_or_default();
        let fence = words.starts_with("```");
        code = comment.is_some() && (code != fence);
        if words.is_empty() || code || fence || words.starts_with(['|', '#']) {
            goes_on = false;
            continue;
        }
        let item = words.strip_prefix("- ");
        match paragraphs.last_mut().filter(|_| goes_on && item.is_none()) {
            Some((_, paragraph)) => *paragraph = format!("{paragraph} {words}"),
            None => paragraphs.push((number, item.unwrap_or(words).to_owned())),
        }
        goes_on = true;
    }
    let each = |(line, text): (usize, String)| {
        let ends = text.match_indices(' ').filter(|(at, _)| {
            let (before, after) = text.split_at(*at);
            before.trim_end_matches(')').ends_with(['.', '?', '!'])
                && !after.trim().starts_with(char::is_lowercase)
        });
        let mut from = 0;
        let mut found = Vec::new();
        for end in ends.map(|(at, _)| at).chain([text.len()]) {
            found.push((line, text[from..end].trim().to_owned()));
            from = end;
        }
        found
    };
    paragraphs.into_iter().flat_map(each).collect()
}

/// Files whose first lines have fewer than two sentences, and sentences that begin with one of [`BAD_FIRST`].
fn told(sources: &[Source]) -> (Vec<String>, Vec<String>) {
    let (mut short, mut bad) = (Vec::new(), Vec::new());
    for source in sources.iter().filter(|source| !source.production.is_empty()) {
        let header = source.text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>();
        if sentences(&header.join("\n")).len() < 2 {
            short.push(source.path.clone());
        }
        let begins = sentences(&source.text).into_iter().filter(|(_, sentence)| {
            sentence.split([' ', '.']).next().is_some_and(|first| BAD_FIRST.contains(&first))
        });
        bad.extend(begins.map(|(line, sentence)| format!("{}:{line} {sentence}", source.path)));
    }
    (short, bad)
}

/// The same of the folders in [`TOLD`].
fn told_below(root: &Path) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let mut sources = Vec::new();
    for folder in TOLD {
        collect(root, folder, &mut sources)?;
    }
    set_tests_apart(&mut sources);
    Ok(told(&sources))
}

/// Takes files for tests whose module is declared for tests alone.
fn set_tests_apart(sources: &mut [Source]) {
    let mut files = BTreeSet::new();
    for source in sources.iter() {
        let folder = match source.path.rsplit_once('/') {
            Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder.to_owned(),
            _ => source.path.trim_end_matches(".rs").to_owned(),
        };
        for words in source.tests.windows(3) {
            if let [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Punct(end)] = words
                && *word == "mod"
                && end.as_char() == ';'
            {
                files.insert(format!("{folder}/{name}.rs"));
            }
        }
    }
    let mut found = false;
    let whole = |source: &&mut Source| files.contains(&source.path) && !source.production.is_empty();
    for source in sources.iter_mut().filter(whole) {
        source.tests.append(&mut source.production);
        source.syntax.items.clear();
        found = true;
    }
    // A module of tests may have modules.
    if found {
        set_tests_apart(sources);
    }
}

fn measure(root: &Path) -> anyhow::Result<Vec<Measure>> {
    let mut sources = Vec::new();
    for folder in ["exchange/src", "exchange/ledger/src", "schemas/src"] {
        collect(root, folder, &mut sources)?;
    }
    set_tests_apart(&mut sources);
    let text = |path: &str| std::fs::read_to_string(root.join(path)).with_context(|| path.to_owned());
    let routes = declared(&text("schemas/src/routes.rs")?, "Route");
    let reasons = declared(&text("schemas/src/codes.rs")?, "Reason");
    anyhow::ensure!(
        !routes.is_empty() && !reasons.is_empty(),
        "the tables of routes and reasons cannot be read"
    );
    let owners = ["Route", "Action", "Granted"];
    let (route, route_places) = most(places(&sources, &owners, &routes));
    let part = |folder: &str| sources.iter().filter(|s| s.path.starts_with(folder)).collect::<Vec<_>>();
    let mut circle = circles(&part("exchange/src/"));
    circle.extend(circles(&part("exchange/ledger/src/")));
    let (mut functions, mut wild) = (Vec::new(), Vec::new());
    for source in sources.iter().filter(|source| !source.production.is_empty()) {
        let mut walk = Walk::default();
        walk.visit_file(&source.syntax);
        functions.extend(
            walk.functions.into_iter().map(|(n, name, l)| (n, format!("{}:{l} {name}", source.path))),
        );
        if source.path.starts_with("exchange/src/") {
            wild.extend(walk.wildcards.iter().map(|line| format!("{}:{line}", source.path)));
        }
    }
    functions.sort();
    let mut lengths: Vec<_> = sources.iter().map(|source| (source.lines(), source.path.clone())).collect();
    lengths.sort();
    let longest = |all: &[(usize, String)]| {
        let sorted: Vec<_> = all.iter().map(|(lines, _)| *lines).collect();
        let last = all.last().cloned().unwrap_or_default();
        (format!("{} (p95 {})", last.0, percentile(&sorted)), vec![last.1])
    };
    let (function, function_place) = longest(&functions);
    let (file, file_place) = longest(&lengths);
    let bare = untested(&sources, &reasons);
    let kinds: Vec<Vec<String>> = sources
        .iter()
        .map(|source| {
            let mut found = Vec::new();
            variants(&source.production, &["DocumentKind"], &mut |_, line| {
                found.push(format!("{}:{line}", source.path))
            });
            found
        })
        .collect();
    let kinds = kinds.concat();
    let (short, bad) = told_below(root)?;
    let row = |name, definition, found, wanted, places| Measure { name, definition, found, wanted, places };
    Ok(vec![
        row(
            "places of a route",
            "The route named most often by paths through Route, Action or Granted outside exchange/src/capability.",
            route,
            "3",
            route_places,
        ),
        row(
            "files in import circles",
            "Files of the exchange or the ledger that reach themselves through the paths that others name.",
            circle.len().to_string(),
            "0",
            circle,
        ),
        row(
            "longest function",
            "Lines from a function's signature to its last brace, outside test modules.",
            function,
            "<= 110",
            function_place,
        ),
        row(
            "longest file",
            "Lines that hold a token outside test modules; comments and blank lines do not count.",
            file,
            "<= 900",
            file_place,
        ),
        row(
            "reasons without a unit test",
            "Reasons that no test module of exchange/src names.",
            format!("{} of {}", bare.len(), reasons.len()),
            "0",
            bare,
        ),
        row(
            "wildcards over domain enums",
            "Arms `_` of a match in exchange/src that also names a variant of a domain enum.",
            wild.len().to_string(),
            "0",
            wild,
        ),
        row(
            "places of a kind of state",
            "A proxy: all places that name a variant or function of DocumentKind.",
            format!("{} in {} files", kinds.len(), files(&kinds)),
            "1",
            kinds,
        ),
        row(
            "headers that say too little",
            "Files outside tests whose first lines have fewer than two sentences.",
            short.len().to_string(),
            "0",
            short,
        ),
        row(
            "sentences that begin badly",
            "Sentences of comments outside tests whose first word is Of, What, Who, Whoever or As.",
            bad.len().to_string(),
            "0",
            bad,
        ),
    ])
}

/// Prints the measures of the source tree below `root`.
pub(crate) fn report(root: &Path, json: bool, verbose: bool) -> anyhow::Result<()> {
    let measures = measure(root)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&measures)?);
        return Ok(());
    }
    for measure in &measures {
        println!(
            "{:<28} {:<32} wanted {:<7} {}",
            measure.name, measure.found, measure.wanted, measure.definition
        );
        if verbose || measure.places.len() == 1 {
            measure.places.iter().for_each(|place| println!("    {place}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_route_is_counted_outside_its_folder_and_outside_tests() {
        let text =
            "fn a() { Route::End; x!(Action::End); End; } #[cfg(test)] mod tests { fn b() { Route::End; } }";
        let all = [
            Source::read("exchange/src/a.rs", text).unwrap(),
            Source::read("exchange/src/capability/end/a.rs", text).unwrap(),
        ];
        assert_eq!(most(places(&all, &["Route", "Action"], &["End".into()])).0, "End: 2 in 1 files");
    }

    #[test]
    fn a_circle_holds_its_files_only() {
        let read = |path, text| Source::read(path, text).unwrap();
        let a = read("exchange/src/a.rs", "use crate::{b::B, c};");
        let b = read("exchange/src/b.rs", "fn b() { super::a::x(); }");
        let c = read("exchange/src/c.rs", "#[cfg(test)] mod tests { use crate::a::A; }");
        assert_eq!(circles(&[&a, &b, &c]), ["exchange/src/a.rs", "exchange/src/b.rs"]);
    }

    #[test]
    fn an_item_counts_for_the_file_that_defines_it() {
        let read = |path, text| Source::read(path, text).unwrap();
        let lib = read("exchange/src/lib.rs", "pub use a::A; mod low { pub mod b; } pub use low::b::B as C;");
        let a = read("exchange/src/a.rs", "use crate::{low::{b::B, b}};");
        let b = read("exchange/src/low/b.rs", "pub struct B;");
        assert_eq!(circles(&[&lib, &a, &b]), [""; 0], "the crate's root is above both");
        let b = read("exchange/src/low/b.rs", "use crate::C;");
        assert_eq!(circles(&[&lib, &a, &b]), [""; 0], "its own item");
        let b = read("exchange/src/low/b.rs", "use crate::A;");
        assert_eq!(circles(&[&lib, &a, &b]), ["exchange/src/a.rs", "exchange/src/low/b.rs"]);
        let b = read("exchange/src/low/b.rs", "fn b() { crate::run(); }");
        assert_eq!(circles(&[&lib, &a, &b]).len(), 3, "the root defines it");
    }

    #[test]
    fn functions_and_wildcards_outside_tests_are_found() {
        let text = "fn a() {\n match x {\n Route::A => 1,\n _ => 2,\n };\n match y { Some(1) => 1, _ => 2 } }\n\
                    #[cfg(test)]\nmod tests { fn b() { match x { Route::A => 1, _ => 2 } } }";
        let source = Source::read("a.rs", text).unwrap();
        let mut walk = Walk::default();
        walk.visit_file(&source.syntax);
        assert_eq!(walk.wildcards, [4]);
        assert_eq!(walk.functions, [(6, "a".to_owned(), 1)]);
        assert_eq!(source.lines(), 6);
    }

    #[test]
    fn a_sentence_is_found_over_lines_and_outside_tests() {
        let text = "//! A file. As one says,\n//! it is. Who\n//! asks?\n//!\n//! - What it has\n\n// What.\nfn a() {}\n\n\
                    #[cfg(test)]\nmod tests { /// Who.\nfn b() {} }\n";
        let source = Source::read("exchange/src/a.rs", text).unwrap();
        let (short, bad) = told(&[source]);
        assert_eq!(short, [""; 0]);
        let at = |line, sentence| format!("exchange/src/a.rs:{line} {sentence}");
        let wanted = [at(1, "As one says, it is."), at(1, "Who asks?"), at(5, "What it has"), at(7, "What.")];
        assert_eq!(bad, wanted);
        let source =
            Source::read("a.rs", "//! A file, e.g. one.\n\n/// It is. Whoever it is.\nfn a() {}").unwrap();
        let (short, bad) = told(&[source]);
        assert_eq!((short.len(), bad), (1, vec!["a.rs:3 Whoever it is.".to_owned()]));
    }

    #[test]
    fn every_file_says_who_may_touch_it_and_what_a_crash_leaves() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let (short, _) = told_below(&root).unwrap();
        assert_eq!(short, [""; 0], "files whose first lines have fewer than two sentences");
    }

    #[test]
    fn a_reason_counts_as_tested_in_a_test_only() {
        let text = "fn a() { Reason::One; } #[cfg(test)] mod tests { fn b() { Reason::Two; } }";
        let source = Source::read("exchange/src/a.rs", text).unwrap();
        assert_eq!(untested(&[source], &["One".into(), "Two".into()]), ["One"]);
        assert_eq!(declared("Reason: u16 {\n/// x\nOne = 1 \"one\",\n}\nB = 2", "Reason"), ["One"]);
    }
}
