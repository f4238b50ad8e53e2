//! The commands of shared data, and the page that leads two departments through them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use schemas::resource::{Condition, Resource, Supply};
use schemas::synthetic::Synthetic;
use serde_json::{Value, json};
use tests::{Finished, HANG, Server, Setup, command, shared};

/// Places in the samples.
const POPULATION: usize = 0;
const LEGAL_PERSON: usize = 1;
/// The answer is no.
const NO: Option<i32> = Some(1);
/// Wrong usage.
const USAGE: Option<i32> = Some(64);

/// Lines that a page says a command prints, in order; `…` stands for anything.
fn expected(guide: &str) -> Vec<&str> {
    let blocks = guide.split("```text\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.flat_map(str::lines).collect()
}

/// Whether a line has the pieces of a pattern between its `…`.
fn fits(line: &str, pattern: &str) -> bool {
    let mut rest = line;
    let mut pieces = pattern.split('…').peekable();
    let Some(first) = pieces.next() else { return false };
    let Some(behind) = rest.strip_prefix(first) else { return false };
    rest = behind;
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        let Some((_, behind)) = rest.split_once(piece) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

/// Runs the commands of a page in an empty folder, and compares what they print with what it says.
pub(crate) fn follow(guide: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let programs = PathBuf::from(command().get_program());
    let path = format!("{}:{}", programs.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-eu", "-c", &crate::folders::commands(guide)])
        .current_dir(folder.path())
        .stdin(Stdio::null());
    let done = shell.env("PATH", path).env("LISTEN", crate::folders::free_address()).output().unwrap();
    let [stdout, stderr] = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
    let log = fs::read_to_string(folder.path().join("quickstart.log")).unwrap_or_default();
    assert_eq!(done.status.code(), Some(0), "{stdout}\n{stderr}\n{log}");
    let (said, told) = (stdout.lines().collect::<Vec<_>>(), expected(guide));
    assert_eq!(said.len(), told.len(), "{stdout}");
    for (said, told) in said.iter().zip(told) {
        assert!(fits(said, told), "{said}\nis not\n{told}");
    }
    folder
}

#[test]
fn the_page_leads_two_departments_to_an_answered_query() {
    let folder = follow(include_str!("../../exchange/docs/guides/departments.md"));
    let catalogue = fs::read_to_string(folder.path().join("catalogue.ndjson")).unwrap();
    assert!(catalogue.lines().any(|line| line.contains("1020010001/000101")), "{catalogue}");
}

/// A server, and a folder for the files of a test.
struct Office<'s> {
    server: &'s Server,
    folder: tempfile::TempDir,
}

impl<'s> Office<'s> {
    fn new(server: &'s Server) -> Self {
        Self { server, folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(&self, words: &[&str]) -> Finished {
        self.server.run(&[words, &["--server", &self.server.data.to_string()]].concat())
    }

    /// The JSON that a command prints which succeeds.
    fn done(&self, words: &[&str]) -> Value {
        let finished = self.run(words);
        assert_eq!(finished.status, Some(0), "{words:?}: {finished:?}");
        serde_json::from_str(&finished.stdout).unwrap()
    }

    /// What a command says that is refused with a status.
    fn refused(&self, status: Option<i32>, words: &[&str]) -> String {
        let finished = self.run(words);
        assert_eq!((finished.status, &*finished.stdout), (status, ""), "{words:?}: {finished:?}");
        finished.stderr
    }

    fn publish(&self, resource: &Resource) {
        let file = self.file("resource.json", serde_json::to_string(resource).unwrap());
        assert_eq!(self.done(&["resource", "write", &file])["state"], "draft");
        let step = ["resource", "publish", &resource.code, "--reason", "测试"];
        assert_eq!(self.done(&step)["state"], "published");
    }

    fn import<'w>(&self, file: &'w str, resource: &'w Resource, more: &[&'w str]) -> Finished {
        self.run(&[&["import", "records", file, "--resource", &*resource.code], more].concat())
    }

    /// The status that the bank is shown of a person.
    fn status(&self, resource: &Resource, number: &str) -> Option<String> {
        let holder = json!({"typeCode": "111", "number": number});
        let query = json!({"resource": resource.code, "holder": holder, "use": tests::use_context()});
        let answer = self.done(&["query", &self.file("query.json", query.to_string()), "--as", "bank"]);
        assert_eq!(answer["found"], answer["record"].is_object());
        answer["record"]["status"].as_str().map(str::to_owned)
    }

    fn application(&self, resource: &Resource) -> String {
        let scope = json!({"fields": ["name", "status"], "dailyLimit": 100, "until": "2099-12-31"});
        let application = json!({"resource": resource.code, "itemCode": tests::use_context()["itemCode"],
            "itemName": "测试事项", "purpose": "测试", "scope": scope});
        self.file("application.json", application.to_string())
    }
}

/// What an import printed: rows, accepted, already, rejected.
fn counts(finished: &Finished) -> [u64; 4] {
    let said: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"));
    ["rows", "accepted", "already", "rejected"].map(|name| said[name].as_u64().unwrap())
}

/// A sample under a code of its own; the bank's need of it is agreed on.
fn sample(server: &Server, place: usize, number: u32) -> Resource {
    let sample = Resource::samples().remove(place);
    let organisation = server.organisation("bank").as_str().to_owned();
    let item_code = tests::use_context()["itemCode"].as_str().unwrap().to_owned();
    let agreed = vec![schemas::resource::Agreed { organisation, item_code }];
    let conditions = sample.conditions.iter().copied().filter(|one| *one != Condition::Volume).collect();
    Resource { code: format!("3990020001/{number:06}"), agreed, conditions, ..sample }
}

fn numbers(count: usize) -> Vec<String> {
    let mut synthetic = Synthetic::new(tests::now_ms());
    let mut numbers: Vec<String> = Vec::new();
    while numbers.len() < count {
        let number = synthetic.citizen_number();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers
}

fn row(number: &str, status: &str) -> String {
    json!({"idNumber": number, "name": "测试人", "regionCode": "440106", "status": status}).to_string()
}

#[tokio::test]
async fn rows_of_both_formats_are_brought_in_and_the_others_named() {
    let turn = shared(Setup::new).await;
    let office = Office::new(&turn);
    let resource = sample(&turn, POPULATION, 1);
    office.publish(&resource);
    assert_eq!(
        office.done(&["application", "make", &office.application(&resource), "--as", "bank"])["rule"],
        "agreed"
    );
    let people = numbers(4);
    // A byte order mark, CRLF, an empty line, a false check digit, a number, a key twice, a person's number as a key.
    let check = if people[1].ends_with('0') { '1' } else { '0' };
    let false_number = format!("{}{check}", &people[1][..17]);
    let mut text = format!("\u{feff}{}\r\n\r\n{}\r\n", row(&people[0], "1"), row(&false_number, "1"));
    text += &format!("{}\r\n{}\r\n", row(&people[2], "1").replace("\"1\"", "1"), row(&people[0], "2"));
    text += &row(&people[3], "1").replace("\"name\"", &format!("\"{}\"", people[3]));
    text += "\n";
    let (file, rejects) = (office.file("rows.ndjson", &text), office.file("rejects.ndjson", "from before"));
    let finished = office.import(&file, &resource, &["--rejects", &rejects]);
    assert_eq!((finished.status, counts(&finished)), (NO, [5, 1, 0, 4]), "{finished:?}");
    let rejects = fs::read_to_string(&rejects).unwrap();
    let told: Vec<Value> = rejects.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> =
        told.iter().map(|told| format!("{} {} {}", told["line"], told["field"], told["rule"])).collect();
    assert_eq!(
        told,
        [
            r#"3 "idNumber" "check-digit""#,
            r#"4 "status" "type""#,
            r#"5 "" "distinct""#,
            r#"6 "member 2" "unknown-member""#,
            r#"6 "name" "required""#
        ]
    );
    for said in [&rejects, &finished.stderr, &finished.stdout] {
        assert!(people.iter().chain([&false_number]).all(|number| !said.contains(number.as_str())), "{said}");
    }
    assert_eq!(office.status(&resource, &people[0]).as_deref(), Some("1"));
    assert_eq!(office.status(&resource, &people[2]), None);

    let csv = format!(
        "\u{feff}status,idNumber,name,regionCode,address\r\n2,{},测试人,44,\"路, \"\"1\"\"号\"\r\n1,{},\"测试人\",44,",
        people[0], people[2]
    );
    let finished = office.import(&office.file("rows.CSV", csv), &resource, &[]);
    assert_eq!((finished.status, counts(&finished)), (Some(0), [2, 2, 0, 0]), "{finished:?}");
    assert_eq!(office.status(&resource, &people[0]).as_deref(), Some("2"));
    assert_eq!(office.status(&resource, &people[2]).as_deref(), Some("1"));
    // Within 24 hours the first file is known by its keys; what has changed since is changed back on demand alone.
    let again = office.import(&file, &resource, &[]);
    assert_eq!(counts(&again), [5, 1, 1, 4], "{again:?}");
    assert_eq!(again.stderr.matches("\"rule\":").count(), 5, "said on standard error: {again:?}");
    assert_eq!(office.status(&resource, &people[0]).as_deref(), Some("2"));
    assert_eq!(counts(&office.import(&file, &resource, &["--again"])), [5, 1, 0, 4]);
    assert_eq!(office.status(&resource, &people[0]).as_deref(), Some("1"));
}

#[tokio::test]
async fn an_import_that_was_killed_and_is_run_again_brings_nothing_in_twice() {
    let mut server = Setup::new().start().await;
    let resource = sample(&server, POPULATION, 2);
    Office::new(&server).publish(&resource);
    const BATCHES: u64 = 60;
    let people = numbers(usize::try_from(BATCHES).unwrap() * 10);
    let mut text = String::new();
    people.iter().for_each(|number| writeln!(text, "{}", row(number, "1")).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.ndjson");
    fs::write(&file, text).unwrap();
    let words = |server: &Server| {
        let words =
            ["import", "records", file.to_str().unwrap(), "--resource", &resource.code, "--batch", "10"];
        let more = ["--server".to_owned(), server.data.to_string()];
        words.map(str::to_owned).into_iter().chain(more).collect::<Vec<_>>()
    };
    let begun = Instant::now();
    let before = server.size().await;
    let mut child = command();
    child.args(words(&server)).arg("--data").arg(&server.folder).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = child.spawn().unwrap();
    while server.size().await < before + 5 {
        assert!(begun.elapsed() < HANG, "nothing is brought in");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // And the exchange itself: what it has answered it answers alike.
    server.kill();
    server.start();
    let run = |server: &Server| {
        let words = words(server);
        server.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let finished = run(&server);
    let [rows, accepted, already, rejected] = counts(&finished);
    assert_eq!((finished.status, rows, accepted, rejected), (Some(0), BATCHES * 10, BATCHES * 10, 0));
    assert!(already >= 10, "{finished:?}");
    // Two looks into the catalogue, and each batch once.
    assert_eq!(server.size().await, before + 2 + BATCHES);
    let whole = run(&server);
    assert_eq!(counts(&whole)[2], BATCHES * 10, "{whole:?}");
    assert_eq!(server.size().await, before + 3 + BATCHES);
}

#[tokio::test]
async fn a_file_that_is_cut_off_keeps_what_came_before() {
    let turn = shared(Setup::new).await;
    let office = Office::new(&turn);
    let resource = sample(&turn, POPULATION, 3);
    office.publish(&resource);
    office.done(&["application", "make", &office.application(&resource), "--as", "bank"]);
    let people = numbers(4);
    let whole = format!("{}\n{}\n", row(&people[0], "1"), row(&people[1], "1"));
    let csv =
        format!("idNumber,name,regionCode,status\n{},测试人,44,1\n{},\"测试人,44,1\n", people[2], people[3]);
    for (name, text, first, line) in [
        ("rows.ndjson", &whole[..whole.len() - 20], &people[0], "line 2: the file is cut off"),
        ("rows.csv", &csv, &people[2], "line 3: the file is cut off"),
    ] {
        let file = office.file(name, text);
        let finished = office.import(&file, &resource, &[]);
        assert_eq!((finished.status, counts(&finished)), (NO, [1, 1, 0, 0]), "{finished:?}");
        assert!(finished.stderr.contains(&format!("{file}: {line}")), "{finished:?}");
        assert_eq!(office.status(&resource, first).as_deref(), Some("1"));
    }
    assert_eq!(office.status(&resource, &people[1]), None);
    let finished = office.import(&office.file("rows.ndjson", &whole), &resource, &[]);
    assert_eq!((finished.status, counts(&finished)), (Some(0), [2, 2, 0, 0]), "{finished:?}");
    assert_eq!(office.status(&resource, &people[1]).as_deref(), Some("1"));
}

#[tokio::test]
async fn an_import_that_cannot_be_is_refused_by_name() {
    let turn = shared(Setup::new).await;
    let office = Office::new(&turn);
    let resource = sample(&turn, POPULATION, 4);
    office.publish(&resource);
    let file = office.file("rows.ndjson", format!("{}\n", row(&numbers(1)[0], "1")));
    let import = |file: &str, code: &str, more: &[&str]| {
        let finished = office.run(&[&["import", "records", file, "--resource", code], more].concat());
        (finished.status, finished.stderr)
    };
    let (status, said) = import(&file, "3990020001/999999", &[]);
    assert!(status == NO && said.contains("--resource: the catalogue has no resource"), "{said}");
    let (status, said) = import(&file, &resource.code, &["--as", "bank"]);
    assert!(status == NO && said.contains("wrong-role") && said.contains("rows before line 1"), "{said}");
    let (status, said) = import("/nowhere/rows.ndjson", &resource.code, &[]);
    assert!(status == USAGE && said.contains("/nowhere/rows.ndjson"), "{said}");
    let before = fs::read(&file).unwrap();
    let (status, said) = import(&file, &resource.code, &["--rejects", &file]);
    assert!(status == USAGE && said.contains("--rejects"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), before);
    let headless = office.file("rows.csv", format!("{},测试人,44,1\n", numbers(1)[0]));
    let (status, said) = import(&headless, &resource.code, &[]);
    assert!(status == NO && said.contains("line 1: column 1") && !said.contains("测试人"), "{said}");
    let other = Resource { supply: Supply::File, central_copy: false, ..sample(&turn, POPULATION, 5) };
    office.publish(&other);
    let (status, said) = import(&file, &other.code, &[]);
    assert!(status == NO && said.contains("resource-refused"), "{said}");
}

#[tokio::test]
async fn a_resource_and_its_applications_live_by_commands() {
    let turn = shared(Setup::new).await;
    let office = Office::new(&turn);
    let resource = Resource { agreed: Vec::new(), ..sample(&turn, POPULATION, 6) };
    office.publish(&resource);
    let wrong = Resource { level: 9, ..resource.clone() };
    let file = office.file("wrong.json", serde_json::to_string(&wrong).unwrap());
    assert!(office.refused(NO, &["resource", "write", &file]).contains("pointer /resource/level"));
    for (step, state) in [("suspend", "suspended"), ("resume", "published")] {
        assert_eq!(office.done(&["resource", step, &resource.code, "--reason", "测试"])["state"], state);
    }
    let listed = |words: &[&str]| {
        let finished = office.run(&[&["resource", "list"], words].concat());
        assert_eq!(finished.status, Some(0), "{finished:?}");
        finished.stdout.lines().any(|line| line.contains(&*resource.code))
    };
    assert!(listed(&["--domain", "population"]) && listed(&["--words", "人口", "--as", "bank"]));
    assert!(!listed(&["--domain", "legal-person"]));

    let file = office.application(&resource);
    assert!(office.refused(USAGE, &["application", "make", &file]).contains("--as NAME"));
    let two = ["application", "make", &file, "--as", "bank", "--cert", "x", "--key", "x"];
    assert!(office.refused(USAGE, &two).contains("--cert"));
    let made = office.done(&["application", "make", &file, "--as", "bank"]);
    assert_eq!(made["state"], "pending");
    let id = made["application"].as_str().unwrap();
    let step = |step: &str, more: &[&str]| office.done(&[&["application", step, id], more].concat());
    let state =
        |name: &str, more: &[&str], state: &str| assert_eq!(step(name, more)["state"], state, "{name}");
    state("negotiate", &["--note", "测试", "--as", "provider"], "pending");
    let ground = ["--ground", "excessive", "--basis", "测试依据", "--as", "provider"];
    state("refuse", &ground, "refused");
    state("dispute", &["--note", "测试", "--as", "bank"], "refused");
    let terms = json!({"fields": ["status"], "dailyLimit": 5, "until": "2099-12-31"});
    let terms = office.file("terms.json", terms.to_string());
    state("approve", &["--terms", &terms, "--as", "provider"], "provided");
    state("settle", &["--note", "测试", "--as", "operator"], "provided");
    state("stop", &[&ground[..4], &["--as", "provider"]].concat(), "stopped");
    let told = office.refused(NO, &["application", "provide", id, "--as", "provider"]);
    assert!(told.contains("application-refused"), "{told}");
    let told = office.refused(NO, &["application", "countersign", id, "--as", "operator"]);
    assert!(told.contains("application-refused"), "{told}");
    let list = |words: &[&str]| {
        let finished = office.run(&[&["application", "list", "--as", "bank"], words].concat());
        assert_eq!(finished.status, Some(0), "{finished:?}");
        finished.stdout.lines().any(|line| line.contains(id))
    };
    assert!(list(&[]) && list(&["--state", "stopped"]) && !list(&["--overdue"]));
    assert_eq!(
        office.done(&["resource", "withdraw", &resource.code, "--reason", "测试"])["state"],
        "withdrawn"
    );
    assert!(!listed(&["--as", "bank"]));

    let open = sample(&turn, LEGAL_PERSON, 7);
    office.publish(&open);
    let calendar = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/calendars/2026.json");
    let calendar = calendar.to_str().unwrap();
    let proposed = office.done(&["calendar", "add", calendar, "--reason", "测试"]);
    let proposal = proposed["proposal"].as_str().unwrap();
    let approve = ["approve", proposal, "--calendar", calendar, "--as"];
    assert!(office.refused(NO, &[&approve[..], &["operator"]].concat()).contains("proposal-refused"));
    office.done(&[&approve[..], &["operator2"]].concat());
    let text = fs::read_to_string(calendar).unwrap().replace("国办发明电〔2025〕7号", "");
    let unfounded = office.file("calendar.json", text);
    let told = office.refused(NO, &["calendar", "add", &unfounded, "--reason", "测试"]);
    assert!(told.contains("bad-calendar") && told.contains("notice"), "{told}");
}

#[test]
fn each_command_of_shared_data_has_an_example() {
    let of = |group: &'static str, commands: &[&'static str]| -> Vec<[&'static str; 2]> {
        commands.iter().map(|command| [group, command]).collect()
    };
    let mut commands = of("resource", &["write", "publish", "suspend", "resume", "withdraw", "list"]);
    commands.extend(of(
        "application",
        &[
            "make",
            "approve",
            "refuse",
            "countersign",
            "provide",
            "negotiate",
            "dispute",
            "settle",
            "stop",
            "list",
        ],
    ));
    commands.extend([["calendar", "add"], ["import", "records"]]);
    let commands = commands.iter().map(|words| &words[..]).chain([&["query"][..]]);
    for words in commands {
        let output = command().args(words).arg("--help").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let example = format!("  exchange {}", words.join(" "));
        assert!(said.contains("Example:") && said.contains(&example), "{words:?}: {said}");
    }
}

#[tokio::test]
async fn a_feed_goes_on_from_its_file_and_a_comparison_is_listed() {
    let turn = shared(Setup::new).await;
    let office = Office::new(&turn);
    let license = tests::draft(&tests::natural()).issue(&mut turn.party("issuer")).await;
    let fields = [("name".to_owned(), "holderName".to_owned())].into();
    let type_code = license.draft.license_type.code.as_str().to_owned();
    let compared = vec![schemas::resource::Compared { type_code, fields }];
    let resource = Resource { compared, ..sample(&turn, POPULATION, 31) };
    office.publish(&resource);
    let people = [license.draft.holder().number().to_owned(), numbers(1).remove(0)];
    let rows = |status: &str| people.each_ref().map(|number| row(number, status)).join("\n") + "\n";
    let brought = office.import(&office.file("rows.ndjson", rows("1")), &resource, &[]);
    assert_eq!(counts(&brought), [2, 2, 0, 0], "{brought:?}");
    let mut application: Value =
        serde_json::from_str(&fs::read_to_string(office.application(&resource)).unwrap()).unwrap();
    application["scope"]["feed"] = true.into();
    let file = office.file("application.json", application.to_string());
    let applied = office.done(&["application", "make", &file, "--as", "bank"]);
    assert_eq!(applied["state"], "pending");
    let id = applied["application"].as_str().unwrap();
    assert_eq!(office.done(&["application", "approve", id, "--as", "provider"])["state"], "provided");
    let question = json!({"resource": resource.code, "limit": 1, "use": tests::use_context()});
    let question = office.file("feed.json", question.to_string());
    let cursor = office.folder.path().join("cursor").to_str().unwrap().to_owned();
    let follow = || {
        let done = office.run(&["feed", &question, "--cursor", &cursor, "--as", "bank"]);
        assert_eq!(done.status, Some(0), "{done:?}");
        done.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    assert_eq!(follow().len(), 2, "two pages of one row");
    assert_eq!(follow(), [Value::Null; 0]);
    let changed = format!("{}\n", row(&people[1], "2"));
    assert_eq!(counts(&office.import(&office.file("changed.ndjson", changed), &resource, &[])), [1, 1, 0, 0]);
    let news = follow();
    assert_eq!((news.len(), &news[0]["record"]["status"]), (1, &json!("2")));
    // Erased by its key; a file with more than keys is none of them.
    let wrong = office.import(&office.file("wrong.ndjson", rows("1")), &resource, &["--erase"]);
    assert_eq!((wrong.status, counts(&wrong)[1]), (NO, 0), "{wrong:?}");
    let key = office.file("erased.csv", format!("idNumber\n{}\n", people[1]));
    assert_eq!(counts(&office.import(&key, &resource, &["--erase"])), [1, 1, 0, 0]);
    let news = follow();
    assert_eq!((news.len(), &news[0]["removed"]), (1, &json!(true)));
    fs::write(&cursor, "0".repeat(120)).unwrap();
    let words = office.refused(NO, &["feed", &question, "--cursor", &cursor, "--as", "bank"]);
    assert!(words.contains("malformed-request"), "{words}");

    let compare = |by: &str| {
        let words =
            ["compare", &license.identifier, "--resource", &resource.code, "--reason", "测试", "--as", by];
        office.done(&words)
    };
    assert_eq!(compare("issuer")["mismatch"], "open");
    let listed = |state: &str| {
        let done = office.run(&["mismatches", "--state", state, "--as", "provider"]);
        assert_eq!(done.status, Some(0), "{done:?}");
        done.stdout.lines().filter(|line| line.contains(&resource.code)).count()
    };
    assert_eq!((listed("open"), listed("corrected")), (1, 0));
    let right = row(&people[0], "1").replace("测试人", &license.draft.license.holders[0].0);
    assert_eq!(
        counts(&office.import(&office.file("right.ndjson", right + "\n"), &resource, &[])),
        [1, 1, 0, 0]
    );
    assert_eq!(compare("provider")["mismatch"], "corrected");
    assert_eq!((listed("open"), listed("corrected")), (0, 1));
}
