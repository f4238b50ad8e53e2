//! Service items and their materials: dictionaries and mappings are imported, the question which materials need not be handed in is
//! answered as far as the caller may know, and what was demanded all the same is counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use client::{
    Apply, Client, DictionaryList, Error, Holder, ItemMaterial, ItemMaterials, ItemsDemanded, ItemsImport,
    ItemsImported, ItemsMaterials, ItemsPage, ItemsSearch, Listing, MaterialKeep, MaterialTrust, Outcome,
    ResourceAction, ResourceTransition, ResourceWrite, Scope, Stage, UseContext,
};
use schemas::codes::Code;
use schemas::date::Date;
use schemas::resource::Resource;
use schemas::routes::Route;
use schemas::synthetic::Synthetic;
use serde_json::{Value, json};
use tests::{Call, Draft, Server, Setup, draft, eventually, holder, legal, natural, shared};

/// 居民身份证.
const CARD: &str = "11100000DE0000022B002";
/// The answer is no.
const NO: Option<i32> = Some(1);

fn client(server: &Server, name: &str) -> Client {
    server.party(name).client().trust(server.trust.clone()).build()
}

fn refused(error: Error) -> Code {
    match error {
        Error::Refused(refused) => Code::from_name(refused.problem.code.as_deref().unwrap()).unwrap(),
        error => panic!("not refused: {error}"),
    }
}

fn row(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split(';').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn the_page_leads_to_an_item_without_paper() {
    crate::departments::follow(include_str!("../../exchange/docs/guides/items.md"));
}

/// An item of the approval system's, with what belongs to it.
struct World<'s> {
    server: &'s Server,
    item: String,
    /// Front of the codes of its materials.
    own: String,
    operator: Client,
    approval: Client,
    bank: Client,
}

impl<'s> World<'s> {
    fn new(server: &'s Server) -> Self {
        let department = Synthetic::new(tests::now_ms()).uscc();
        let [operator, approval, bank] = ["operator", "approval", "bank"].map(|name| client(server, name));
        let own = format!("M{}", &department.as_str()[8..16]);
        Self { server, item: format!("{department}4400100000001"), own, operator, approval, bank }
    }

    /// A row with the codes of this world in place of `ITEM`, `DEPARTMENT` and `$`.
    fn row(&self, text: &str) -> BTreeMap<String, String> {
        let department = self.server.organisation("approval");
        row(&text
            .replace("ITEM", &self.item)
            .replace("DEPARTMENT", department.as_str())
            .replace('$', &self.own))
    }

    async fn import(&self, by: &Client, list: DictionaryList, rows: &[&str]) -> ItemsImported {
        let rows = rows.iter().map(|text| self.row(text)).collect();
        let import = ItemsImport { list, source: "测试清单".to_owned(), first_line: Some(1), rows };
        by.import_items(&import).await.unwrap().value
    }

    /// Imports rows that are all taken.
    async fn taken(&self, by: &Client, list: DictionaryList, rows: &[&str]) {
        let imported = self.import(by, list, rows).await;
        assert_eq!((imported.rejected, imported.accepted), (0, rows.len() as u64), "{:?}", imported.rejects);
    }

    /// The faults of rows: line, pointer and rule.
    async fn rejects(&self, by: &Client, list: DictionaryList, rows: &[&str]) -> Vec<String> {
        let rejects = self.import(by, list, rows).await.rejects;
        let all = rejects.iter().flat_map(|row| row.errors.iter().map(move |error| (row.line, error)));
        all.map(|(line, error)| format!("{line} {} {}", error.pointer, error.rule)).collect()
    }

    /// An item with four materials, three of them mapped.
    async fn fill(&self, resource: &Resource) {
        let materials = ["$CARD", "$ROW", "$FORM", "$PAPER"]
            .map(|code| format!("code={code};name=材料;version=1;origin=government"));
        let materials = materials.each_ref().map(String::as_str);
        self.taken(&self.operator, DictionaryList::Materials, &materials).await;
        let item =
            "code=ITEM;name=测试事项;version=1;department=DEPARTMENT;materials=$CARD $ROW $FORM $PAPER";
        self.taken(&self.operator, DictionaryList::Items, &[item]).await;
        let share = format!("item=ITEM;material=$ROW;mode=share;resource={};fields=status", resource.code);
        let card = format!("item=ITEM;material=$CARD;mode=verify;typeCode={CARD}");
        let mappings = [card.as_str(), &share, "item=ITEM;material=$FORM;mode=drop"];
        // The department of the item may do it, too.
        self.taken(&self.approval, DictionaryList::Mappings, &mappings).await;
    }

    fn context(&self) -> UseContext {
        let context: UseContext = serde_json::from_value(tests::use_context()).unwrap();
        UseContext { item_code: self.item.clone(), ..context }
    }

    fn question(&self, whose: Option<&Draft>, grants: &[&str]) -> ItemsMaterials {
        ItemsMaterials {
            holder: whose.map(|draft| Holder::from(draft.holder())),
            grants: grants.iter().map(|grant| (*grant).to_owned()).collect(),
            digests: None,
            assertion: None,
            context: self.context(),
        }
    }

    async fn ask(&self, by: &Client, whose: Option<&Draft>, grants: &[&str]) -> ItemMaterials {
        by.materials(&self.question(whose, grants)).await.unwrap().value
    }

    fn search(&self, list: Listing) -> ItemsSearch {
        ItemsSearch {
            list,
            code: None,
            words: None,
            item: None,
            review: false,
            orphans: false,
            after: None,
            limit: None,
        }
    }

    /// The mappings of this world's item.
    async fn mappings(&self, review: bool) -> ItemsPage {
        let search = ItemsSearch { item: Some(self.item.clone()), review, ..self.search(Listing::Mappings) };
        self.bank.items(&search).await.unwrap().value
    }
}

/// Outcomes of the card, the row, the form and the paper.
fn outcomes(answer: &ItemMaterials) -> [Outcome; 4] {
    let count = |outcome| answer.materials.iter().filter(|one| one.outcome == outcome).count() as u64;
    assert_eq!((answer.spared, answer.missing), (count(Outcome::Spared), count(Outcome::Missing)));
    let all: Vec<Outcome> = answer.materials.iter().map(|material| material.outcome).collect();
    all.try_into().unwrap()
}

fn resource(number: u32) -> Resource {
    Resource { code: format!("3990030001/{number:06}"), ..Resource::samples().remove(1) }
}

async fn publish(server: &Server, resource: &Resource) {
    let provider = client(server, "provider");
    provider.write_resource(&ResourceWrite { resource: resource.clone() }).await.unwrap();
    step(server, resource, ResourceAction::Publish).await;
}

async fn step(server: &Server, resource: &Resource, action: ResourceAction) {
    let step = ResourceTransition { resource: resource.code.clone(), action, reason: "测试".to_owned() };
    client(server, "provider").transition_resource(&step).await.unwrap();
}

/// An application for a field of a resource, which a rule grants.
async fn apply(by: &Client, world: &World<'_>, resource: &Resource, field: &str) {
    let scope = Scope {
        fields: vec![field.to_owned()],
        clear: Vec::new(),
        regions: Vec::new(),
        daily_limit: None,
        feed: false,
        until: "2099-12-31".parse().unwrap(),
    };
    let (item_code, item_name) = (world.item.clone(), "测试事项".to_owned());
    let apply =
        Apply { resource: resource.code.clone(), item_code, item_name, purpose: "测试".to_owned(), scope };
    by.apply(&apply).await.unwrap();
}

#[tokio::test]
async fn each_material_is_dropped_shared_verified_or_asked_for() {
    use Outcome::{Missing, Spared, Unknown};
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let world = World::new(server);
    let resource = resource(1);
    publish(server, &resource).await;
    world.fill(&resource).await;
    let (approval, bank, portal) = (&world.approval, &world.bank, client(server, "portal"));

    // Without a holder: what the dictionaries and the caller's own approvals say.
    assert_eq!(outcomes(&world.ask(approval, None, &[]).await), [Unknown, Missing, Spared, Missing]);
    apply(approval, &world, &resource, "organisationName").await;
    assert_eq!(outcomes(&world.ask(approval, None, &[]).await)[1], Missing, "another field");
    let stopped = json!({"application": approval.applications(&Default::default()).await.unwrap().applications
        .iter().find(|one| one.resource == resource.code).unwrap().application, "action": "stop"});
    approval.call::<Value>(Route::ApplicationTransition, &stopped).await.unwrap();
    apply(approval, &world, &resource, "status").await;
    assert_eq!(outcomes(&world.ask(approval, None, &[]).await), [Unknown, Spared, Spared, Missing]);
    assert_eq!(outcomes(&world.ask(bank, None, &[]).await)[1], Missing, "an approval of another");
    step(server, &resource, ResourceAction::Suspend).await;
    assert_eq!(outcomes(&world.ask(approval, None, &[]).await)[1], Missing, "suspended");
    step(server, &resource, ResourceAction::Resume).await;

    // With a holder: the portal is told, and who has a grant for the type.
    let person = draft(&natural());
    assert_eq!(person.license_type.code.as_str(), CARD, "the sample is an identity card");
    assert_eq!(outcomes(&world.ask(&portal, Some(&person), &[]).await)[0], Missing, "none");
    let issued = person.issue(&mut server.party("issuer")).await;
    let told = world.ask(&portal, Some(&person), &[]).await;
    assert_eq!(outcomes(&told), [Spared, Missing, Spared, Missing]);
    let license = told.materials[0].license.as_ref().unwrap();
    assert_eq!((license.identifier.to_string(), license.in_force), (issued.identifier.clone(), true));
    let untold = world.ask(approval, Some(&person), &[]).await;
    assert!(outcomes(&untold)[0] == Unknown && untold.materials[0].license.is_none());
    let terms = |modes: &[&str], organisation: &str, code: &str| {
        json!({"holder": holder(person.holder()), "grantee": server.organisation(organisation), "typeCode": code,
            "modes": modes, "until": tests::in_one_hour(), "maxUses": 1})
    };
    let mut by = server.party("portal");
    let good = by.grant(&terms(&["search"], "approval", CARD)).await;
    let other_mode = by.grant(&terms(&["verify"], "approval", CARD)).await;
    let other_type = by.grant(&terms(&["search"], "approval", legal().code.as_str())).await;
    let other_grantee = by.grant(&terms(&["search"], "bank", CARD)).await;
    assert_eq!(
        outcomes(&world.ask(approval, Some(&person), &[&good]).await),
        [Spared, Spared, Spared, Missing]
    );
    for wrong in [&other_mode, &other_type, &other_grantee, &"0".repeat(32)] {
        let refusal = approval.materials(&world.question(Some(&person), &[wrong])).await.unwrap_err();
        assert_eq!(refused(refusal), Code::NotPermitted);
        // One that covers nothing is not passed over beside one that does.
        let both = approval.materials(&world.question(Some(&person), &[&good, wrong])).await.unwrap_err();
        assert_eq!(refused(both), Code::NotPermitted);
    }
    let stranger = draft(&natural());
    let refusal = approval.materials(&world.question(Some(&stranger), &[&good])).await.unwrap_err();
    assert_eq!(refused(refusal), Code::NotPermitted, "another person");

    // A license not in force is told with its state. It is the same case: the grant's only use goes on in it, and in no other.
    server.party("issuer").send(&issued.operation("05", Some("07"))).await.expect(200);
    let ended = world.ask(approval, Some(&person), &[&good]).await;
    let license = ended.materials[0].license.as_ref().unwrap();
    assert_eq!((outcomes(&ended)[0], license.in_force, license.state.code()), (Missing, false, "07"));
    let mut elsewhere = world.question(Some(&person), &[&good]);
    elsewhere.context.business_code = "CS20260002".to_owned();
    let spent = approval.materials(&elsewhere).await.unwrap_err();
    assert_eq!(refused(spent), Code::NotPermitted, "used up");

    // Each question stands in the person's trace.
    let trace = json!({"holder": holder(person.holder()), "use": tests::use_context()});
    eventually("the questions stand in the trace", || async {
        let page = portal.call::<Value>(Route::Trace, &trace).await.unwrap().value;
        let told =
            page["entries"].as_array().unwrap().iter().filter_map(|entry| entry["told"]["document"].as_str());
        let asked = told.filter(|told| told.contains(&world.item)).count();
        (asked >= 5).then_some(())
    })
    .await;

    // Nobody asks about an item that there is not.
    let unknown = ItemsMaterials {
        context: UseContext { item_code: "1".into(), ..world.context() },
        ..world.question(None, &[])
    };
    assert_eq!(refused(approval.materials(&unknown).await.unwrap_err()), Code::UnknownItem);
}

#[tokio::test]
async fn an_item_that_changes_puts_its_mappings_under_review() {
    use Outcome::{Missing, Spared};
    let turn = shared(Setup::new).await;
    let world = World::new(&turn);
    let resource = resource(2);
    publish(&turn, &resource).await;
    world.fill(&resource).await;
    apply(&world.approval, &world, &resource, "status").await;
    assert_eq!(world.mappings(true).await.mappings.len(), 0);
    let version = |version: u32| {
        format!(
            "code=ITEM;name=测试事项;version={version};department=DEPARTMENT;materials=$CARD $ROW $FORM $PAPER"
        )
    };
    // The same again changes nothing; another content needs another version.
    let again = world.import(&world.operator, DictionaryList::Items, &[&version(1)]).await;
    assert_eq!((again.accepted, again.unchanged), (1, 1));
    let other = version(1).replace("测试事项", "另一事项");
    assert_eq!(world.rejects(&world.operator, DictionaryList::Items, &[&other]).await, ["1 /version order"]);
    world.taken(&world.operator, DictionaryList::Items, &[&version(2)]).await;
    let flagged = world.mappings(true).await.mappings;
    assert_eq!((flagged.len(), flagged[0].item_version), (3, 1));
    let answer = world.ask(&world.approval, None, &[]).await;
    // A material that was dropped is asked for again; an approval guards itself.
    assert_eq!(outcomes(&answer)[1..], [Spared, Missing, Missing]);
    let review: Vec<bool> = answer.materials.iter().map(|one| one.review).collect();
    assert_eq!((answer.version, review), (2, vec![true, true, true, false]));
    // One who brings a mapping in again has looked at it.
    world.taken(&world.approval, DictionaryList::Mappings, &["item=ITEM;material=$FORM;mode=drop"]).await;
    let answer = world.ask(&world.approval, None, &[]).await;
    assert_eq!((outcomes(&answer)[2], world.mappings(true).await.mappings.len()), (Spared, 2));
    // A mapping that no longer holds, and an item that nobody does.
    world
        .taken(
            &world.approval,
            DictionaryList::Mappings,
            &["item=ITEM;material=$FORM;mode=drop;status=cancelled"],
        )
        .await;
    assert_eq!(outcomes(&world.ask(&world.approval, None, &[]).await)[2], Missing);
    let gone = format!("{};status=cancelled", version(3));
    world.taken(&world.operator, DictionaryList::Items, &[&gone]).await;
    let refusal = world.approval.materials(&world.question(None, &[])).await.unwrap_err();
    assert_eq!(refused(refusal), Code::UnknownItem);
    let late = world
        .rejects(&world.operator, DictionaryList::Mappings, &["item=ITEM;material=$ROW;mode=drop"])
        .await;
    assert_eq!(late, ["1 /item unknown"]);
}

#[tokio::test]
async fn rows_that_do_not_fit_are_named_and_the_others_taken() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let world = World::new(server);
    let (listed, withdrawn) = (resource(3), resource(4));
    publish(server, &listed).await;
    publish(server, &withdrawn).await;
    step(server, &withdrawn, ResourceAction::Withdraw).await;
    world.fill(&listed).await;
    let by = &world.operator;
    let check = if world.item.as_bytes()[17] == b'0' { "1" } else { "0" };
    let wrong = format!("{}{check}{}", &world.item[..17], &world.item[18..]);
    let item = |code: &str, materials: &str| {
        format!("code={code};name=事项;version=1;department=DEPARTMENT;materials={materials}")
    };
    let rows = [
        item(&wrong, "$CARD"),
        item("1", "$CARD"),
        item("ITEM01", "$NONE"),
        item("ITEM01", "$CARD"),
        item("ITEM01", "$CARD"),
    ];
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    assert_eq!(
        world.rejects(by, DictionaryList::Items, &rows).await,
        ["1 /code check-digit", "2 /code pattern", "3 /materials unknown", "5 /code distinct"]
    );
    let share = |code: &str, field: &str| {
        format!("item=ITEM;material=$ROW;mode=share;resource={code};fields={field}")
    };
    let verify = |code: &str, fields: &str| {
        format!("item=ITEM;material=$CARD;mode=verify;typeCode={code};fields={fields}")
    };
    let rows = [
        share(&listed.code, "secret"),
        share(&withdrawn.code, "status"),
        share("9990030001/999999", "status"),
        verify("11100000DE0000022B999", "holderName"),
        verify(CARD, "enterpriseName"),
        "item=ITEM;material=$NONE;mode=drop".to_owned(),
        "item=ITEM01;material=$ROW;mode=drop".to_owned(),
        verify(CARD, "holderName"),
        "item=ITEM;material=$CARD;mode=drop".to_owned(),
        "item=ITEM;material=$PAPER;mode=drop;secret=1".to_owned(),
    ];
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    assert_eq!(
        world.rejects(by, DictionaryList::Mappings, &rows).await,
        [
            "1 /fields one-of",
            "2 /resource unknown",
            "3 /resource unknown",
            "4 /typeCode unknown",
            "5 /fields one-of",
            "6 /material unknown",
            "7 /material unknown",
            "9 /material distinct",
            "10 /3 unknown-member",
        ]
    );
    // An item of another department, and a dictionary by who is no operator.
    let others =
        world.rejects(&world.bank, DictionaryList::Mappings, &["item=ITEM;material=$PAPER;mode=drop"]).await;
    assert_eq!(others, ["1 /item not-allowed"]);
    let import = ItemsImport {
        list: DictionaryList::Elements,
        source: "测试".to_owned(),
        first_line: None,
        rows: vec![row("code=E1;name=元;version=1")],
    };
    assert_eq!(refused(world.bank.import_items(&import).await.unwrap_err()), Code::WrongRole);
    let none = ItemsImport { rows: Vec::new(), ..import };
    assert_eq!(refused(world.operator.import_items(&none).await.unwrap_err()), Code::BadItems);
}

#[tokio::test]
async fn fields_and_elements_that_lead_nowhere_are_reported() {
    let server = Setup::new().start().await;
    let operator = client(&server, "operator");
    let rows = ["DE00001", "DE99999"].map(|code| row(&format!("code={code};name=元;version=1")));
    let import = ItemsImport {
        list: DictionaryList::Elements,
        source: "测试".to_owned(),
        first_line: None,
        rows: rows.to_vec(),
    };
    operator.import_items(&import).await.unwrap();
    // Its field idNumber is DE00001.
    let population = Resource { code: "3990030001/000005".to_owned(), ..Resource::samples().remove(0) };
    publish(&server, &population).await;
    let search = World::new(&server).search(Listing::Elements);
    let page = operator.items(&ItemsSearch { orphans: true, ..search }).await.unwrap().value;
    let unused: Vec<&str> = page.elements.iter().map(|element| element.code.as_str()).collect();
    assert_eq!(unused, ["DE99999"]);
    let fields: Vec<&str> = page.orphan_fields.iter().map(|orphan| orphan.field.as_str()).collect();
    assert!(fields.contains(&"name") && !fields.contains(&"idNumber"), "{fields:?}");
    assert_eq!(fields.len(), population.fields.len() - 1);
    let said = server.run(&["item", "orphans", "--server", &server.data.to_string()]);
    assert!(said.status == Some(0) && said.stdout.contains("DE99999"), "{said:?}");
}

#[tokio::test]
async fn ten_thousand_mappings_are_brought_in_by_file() {
    const MATERIALS: usize = 20;
    const ITEMS: usize = 500;
    let turn = shared(Setup::new).await;
    let world = World::new(&turn);
    let folder = tempfile::tempdir().unwrap();
    let department = &world.item[..18];
    let material = |place: usize| format!("{}{place:03}", world.own);
    let item = |place: usize| format!("{department}5500{place:09}");
    let (mut materials, mut items, mut mappings) =
        ("code,name,version,origin\n".to_owned(), String::new(), "item,material,mode\n".to_owned());
    let codes: Vec<String> = (0..MATERIALS).map(material).collect();
    for code in &codes {
        writeln!(materials, "{code},材料,1,government").unwrap();
    }
    for place in 0..ITEMS {
        let row = json!({"code": item(place), "name": "事项", "version": "1", "department": department, "materials": codes.join(" ")});
        writeln!(items, "{row}").unwrap();
        for code in &codes {
            writeln!(mappings, "{},{code},drop", item(place)).unwrap();
        }
    }
    let import = |list: &str, name: &str, text: &str, more: &[&str]| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let words = ["import", list, path.to_str().unwrap(), "--source", "测试清单", "--server"];
        turn.run(&[&words[..], &[&turn.data.to_string()], more].concat())
    };
    let counts = |finished: &tests::Finished| {
        let said: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"));
        ["rows", "accepted", "already", "rejected"].map(|name| said[name].as_u64().unwrap())
    };
    let before = turn.size().await;
    let done = import("materials", "materials.csv", &materials, &[]);
    assert_eq!(
        (done.status, counts(&done)),
        (Some(0), [MATERIALS as u64, MATERIALS as u64, 0, 0]),
        "{done:?}"
    );
    let done = import("items", "items.ndjson", &items, &[]);
    assert_eq!((done.status, counts(&done)), (Some(0), [ITEMS as u64, ITEMS as u64, 0, 0]), "{done:?}");
    let all = (MATERIALS * ITEMS) as u64;
    let done = import("mappings", "mappings.csv", &mappings, &[]);
    assert_eq!((done.status, counts(&done)), (Some(0), [all, all, 0, 0]), "{done:?}");
    // A look into each list, and an entry for each batch.
    assert_eq!(turn.size().await, before + 3 + 1 + 1 + all / 1_000);
    // Run again it brings nothing in twice.
    let again = import("mappings", "mappings.csv", &mappings, &[]);
    assert_eq!(counts(&again), [all, all, all, 0], "{again:?}");
    // A file that is cut off keeps what came before, and says where; a row that does not fit is named.
    let rejects = folder.path().join("rejects.ndjson");
    let text = format!("item,material,mode\n{},{},paper\n{},\"{}", item(0), codes[0], item(0), codes[1]);
    let cut = import("mappings", "cut.csv", &text, &["--rejects", rejects.to_str().unwrap()]);
    assert!(cut.status == NO && cut.stderr.contains("line 3: the file is cut off here"), "{cut:?}");
    assert!(fs::read_to_string(&rejects).unwrap().contains(r#""line":2,"field":"mode","rule":"pattern""#));
    let named = import("mappings", "names.csv", "item,material,mode,secret\n", &[]);
    assert!(named.status == NO && named.stderr.contains("column 4 is no field of the rows"), "{named:?}");

    // An item is answered by its own rows alone.
    let context = UseContext { item_code: item(ITEMS - 1), ..world.context() };
    let asked = ItemsMaterials { context, ..world.question(None, &[]) };
    let answer = world.approval.materials(&asked).await.unwrap();
    assert_eq!((answer.spared, answer.materials.len()), (MATERIALS as u64, MATERIALS));
    let search = ItemsSearch { item: Some(item(7)), ..world.search(Listing::Mappings) };
    let page = world.bank.items(&search).await.unwrap();
    assert_eq!((page.mappings.len(), &page.next), (MATERIALS, &None));
    let listed =
        turn.run(&["item", "list", "mappings", "--item", &item(7), "--server", &turn.data.to_string()]);
    assert_eq!((listed.status, listed.stdout.lines().count()), (Some(0), MATERIALS), "{listed:?}");
}

/// A material as it is told.
fn told<'a>(answer: &'a ItemMaterials, world: &World<'_>, code: &str) -> &'a ItemMaterial {
    let code = format!("{}{code}", world.own);
    answer.materials.iter().find(|material| material.material == code).unwrap()
}

#[tokio::test]
async fn a_material_that_was_verified_once_is_kept_until_its_end_or_its_holders() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let world = World::new(server);
    let resource = resource(6);
    publish(server, &resource).await;
    world.fill(&resource).await;
    let (person, portal) = (draft(&natural()), client(server, "portal"));
    let keep = |trust, until: &str, digest: &str| MaterialKeep {
        holder: Holder::from(person.holder()),
        material: format!("{}PAPER", world.own),
        digest: digest.repeat(64),
        trust,
        until: until.parse().unwrap(),
        context: world.context(),
    };
    let approval = &world.approval;
    // Uploaded is not verified.
    approval.keep_material(&keep(MaterialTrust::Uploaded, "2030-12-31", "a")).await.unwrap();
    let answer = world.ask(approval, Some(&person), &[]).await;
    let paper = told(&answer, &world, "PAPER");
    assert_eq!(
        (paper.outcome, paper.kept.as_ref().unwrap().trust),
        (Outcome::Missing, MaterialTrust::Uploaded)
    );
    let kept = approval.keep_material(&keep(MaterialTrust::Checked, "2030-12-31", "a")).await.unwrap();
    assert_eq!(kept.verifier, server.organisation("approval"));
    let answer = world.ask(approval, Some(&person), &[]).await;
    assert_eq!(told(&answer, &world, "PAPER").outcome, Outcome::Spared);
    assert_eq!(told(&world.ask(&portal, Some(&person), &[]).await, &world, "PAPER").outcome, Outcome::Spared);
    let other = world.ask(&world.bank, Some(&person), &[]).await;
    assert!(told(&other, &world, "PAPER").kept.is_none(), "another organisation");
    assert!(told(&world.ask(approval, Some(&draft(&natural())), &[]).await, &world, "PAPER").kept.is_none());
    // One whose item it is not says nothing to the portal, and nobody but an authority has issued anything.
    let stranger = draft(&natural());
    let by_bank = MaterialKeep {
        holder: Holder::from(stranger.holder()),
        ..keep(MaterialTrust::Checked, "2030-12-31", "a")
    };
    world.bank.keep_material(&by_bank).await.unwrap();
    let answer = world.ask(&portal, Some(&stranger), &[]).await;
    let paper = told(&answer, &world, "PAPER");
    assert!(paper.outcome == Outcome::Missing && paper.kept.is_some());
    let issued = MaterialKeep { trust: MaterialTrust::Issued, ..by_bank };
    assert_eq!(refused(world.bank.keep_material(&issued).await.unwrap_err()), Code::BadItems);
    // The digest says whether it is the same.
    for (digest, same) in [("a", true), ("b", false)] {
        let digests = BTreeMap::from([(format!("{}PAPER", world.own), digest.repeat(64))]);
        let asked = ItemsMaterials { digests: Some(digests), ..world.question(Some(&person), &[]) };
        let answer = approval.materials(&asked).await.unwrap().value;
        let paper = told(&answer, &world, "PAPER");
        assert_eq!(paper.kept.as_ref().unwrap().same, Some(same));
        assert_eq!(paper.outcome == Outcome::Spared, same);
    }
    for (wrong, code) in [
        (keep(MaterialTrust::Checked, "2020-01-01", "a"), Code::BadItems),
        (keep(MaterialTrust::Checked, "2099-01-01", "a"), Code::BadItems),
        (keep(MaterialTrust::Checked, "2030-01-01", "x"), Code::BadItems),
        (
            MaterialKeep { material: "NONE".to_owned(), ..keep(MaterialTrust::Checked, "2030-01-01", "a") },
            Code::BadItems,
        ),
    ] {
        assert_eq!(refused(approval.keep_material(&wrong).await.unwrap_err()), code);
    }
    // It goes with its holder.
    let propose = json!({"kind": "erase-holder", "holder": holder(person.holder()), "reason": "测试"});
    let proposed = server.party("operator").send(&Call::new(Route::Propose, &propose)).await.expect(201).json;
    let approve = Call::new(Route::Approve, &json!({"proposal": proposed["proposal"]}));
    server.party("operator2").send(&approve).await.expect(200);
    let gone = world.ask(approval, Some(&person), &[]).await;
    assert!(told(&gone, &world, "PAPER").kept.is_none());
}

/// A kept material leaves by itself.
#[tokio::test]
async fn a_kept_material_ends_with_its_last_day() {
    let mut server = Setup::new().start().await;
    let resource = resource(7);
    publish(&server, &resource).await;
    let (person, today) = (draft(&natural()), Date::at(i64::try_from(tests::now_ms() / 1_000).unwrap()));
    let (question, paper) = {
        let world = World::new(&server);
        world.fill(&resource).await;
        let keep = MaterialKeep {
            holder: Holder::from(person.holder()),
            material: format!("{}PAPER", world.own),
            digest: "a".repeat(64),
            trust: MaterialTrust::Checked,
            until: today,
            context: world.context(),
        };
        world.approval.keep_material(&keep).await.unwrap();
        assert!(told(&world.ask(&world.approval, Some(&person), &[]).await, &world, "PAPER").kept.is_some());
        (world.question(Some(&person), &[]), format!("{}PAPER", world.own))
    };
    let organisation = server.organisation("approval");
    server.stop();
    let later = server.later(86_400_000).await;
    let call = Call::new(Route::ItemsMaterials, &serde_json::to_value(&question).unwrap());
    let reply = later.ask(organisation, &call).await.expect(200);
    let all = reply.json["materials"].as_array().unwrap();
    let told = all.iter().find(|material| material["material"] == paper.as_str()).unwrap();
    assert_eq!((&told["outcome"], told.get("kept")), (&json!("missing"), None));
    later.close().await;
}

#[tokio::test]
async fn licenses_and_rows_of_one_matter_are_answered_together_each_on_its_own() {
    let turn = shared(Setup::new).await;
    let server = &*turn;
    let world = World::new(server);
    let resource = Resource { code: "3990030001/000008".to_owned(), ..Resource::samples().remove(1) };
    publish(server, &resource).await;
    apply(&world.bank, &world, &resource, "status").await;
    let company = draft(&legal());
    let issued = company.issue(&mut server.party("issuer")).await;
    let context = serde_json::to_value(world.context()).unwrap();
    let named = json!({"identifier": issued.identifier});
    let lines = [
        json!({"verify": {"license": named, "use": context}}),
        json!({"query": {"resource": resource.code, "holder": holder(company.holder()), "use": context}}),
        json!({"retrieve": {"license": named, "mode": "face", "use": context}}),
        json!({"verify": {"license": named, "use": context}, "query": {"resource": resource.code, "use": context}}),
        json!({"query": {"resource": resource.code, "holder": holder(company.holder()), "fields": ["organisationName"], "use": context}}),
    ];
    let body: Vec<String> = lines.iter().map(Value::to_string).collect();
    let call = Call::raw(Route::Bundle, body.join("\n")).header("content-type", "application/x-ndjson");
    let before = server.size().await;
    let reply = server.party("bank").send(&call).await.expect(200);
    let text = std::str::from_utf8(&reply.body).unwrap();
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.last(), Some(&json!({"end": true, "lines": 5})));
    assert_eq!(answers[0]["verdict"], "valid");
    assert_eq!(answers[1]["found"], false);
    assert_eq!(answers[2]["code"], "not-permitted");
    assert_eq!(
        (&answers[3]["code"], &answers[3]["errors"][0]["rule"]),
        (&json!("malformed-request"), &json!("combination"))
    );
    assert_eq!(
        (&answers[4]["code"], &answers[4]["accessRequest"]["resource"]),
        (&json!("approval-needed"), &json!(resource.code))
    );
    // An entry each, of this route, over the line as it was sent.
    assert_eq!(server.size().await, before + 5);
    for (line, answer) in body.iter().zip(text.lines()) {
        let (_, receipt) = verifier::receipt::cut(answer.as_bytes()).unwrap();
        let report = verifier::receipt::verify(
            &receipt,
            Some(line.as_bytes()),
            None,
            &server.trust,
            tests::now_ms() / 1_000,
        );
        assert_eq!(report.verdict, verifier::report::Verdict::Valid, "{report:?}");
        let open = verifier::leaf::Open::parse(&receipt.open).unwrap();
        assert_eq!((open.route, open.index >= before), (Route::Bundle.number(), true));
    }
    // A part is asked of the policies as the use that it is, and its roles are those of its own route.
    let query = Call::new(Route::Bundle, &lines[1]);
    server.refused(&mut server.party("portal"), &query, Code::NotPermitted).await;
    let wrong = json!({"query": {"resource": resource.code, "use": {}}});
    let told = server.party("bank").send(&Call::new(Route::Bundle, &wrong)).await.expect(422);
    assert_eq!(told.json["errors"][0]["pointer"], "/query/use/userName");
}

#[tokio::test]
async fn what_is_demanded_all_the_same_is_counted_twice_and_agrees() {
    let server = Setup::new().start().await;
    let world = World::new(&server);
    let resource = resource(9);
    publish(&server, &resource).await;
    world.fill(&resource).await;
    let (person, without) = (draft(&natural()), draft(&natural()));
    let issued = person.issue(&mut server.party("issuer")).await;
    let report = async |whose: &Draft, case: &str, stage, codes: &[&str]| {
        let context = UseContext { business_code: case.into(), stage, ..world.context() };
        let demanded = codes.iter().map(|code| format!("{}{code}", world.own)).collect();
        let holder = Some(Holder::from(whose.holder()));
        world.approval.report_demanded(&ItemsDemanded { holder, demanded, context }).await
    };
    // A first case demands one of four; later the license that it did without and had used, and a form that nobody needs.
    let terms = json!({"holder": holder(person.holder()), "grantee": server.organisation("approval"), "typeCode": CARD,
        "modes": ["fields"], "fields": ["holderName"], "until": tests::in_one_hour()});
    let right = server.party("portal").grant(&terms).await;
    let mut retrieve: Value =
        serde_json::from_slice(&issued.retrieve(&["holderName"], Some(&right)).body).unwrap();
    retrieve["use"] = json!(UseContext { business_code: "CS1".into(), ..world.context() });
    server.party("approval").send(&Call::new(Route::Retrieve, &retrieve)).await.expect(200);
    assert_eq!(report(&person, "CS1", Stage::Acceptance, &["PAPER"]).await.unwrap().demanded, 1);
    report(&person, "CS1", Stage::Decision, &["CARD", "FORM"]).await.unwrap();
    // A second one demands the license of who has none. Reported again, a stage is corrected.
    report(&without, "CS2", Stage::Acceptance, &["CARD", "PAPER", "FORM"]).await.unwrap();
    report(&without, "CS2", Stage::Acceptance, &["CARD", "PAPER"]).await.unwrap();
    report(&without, "CS3", Stage::Acceptance, &[]).await.unwrap();
    let unknown = report(&person, "CS1", Stage::Acceptance, &["NONE"]).await.unwrap_err();
    assert_eq!(refused(unknown), Code::BadItems);

    let data = server.data.to_string();
    let own = server.run(&["indicators", "--server", &data]);
    assert_eq!(own.status, Some(0), "{own:?}");
    let own: Value = serde_json::from_str(&own.stdout).unwrap();
    let item = &own["items"][&world.item];
    // 12 materials of three cases; of the first three were demanded, of the second two.
    assert_eq!((&item["cases"], &item["materials"], &item["demanded"]), (&json!(3), &json!(12), &json!(5)));
    assert_eq!(item["sparedPermille"], 583);
    assert_eq!((&item["needless"], &item["again"]), (&json!(2), &json!(2)));
    let needless = json!({format!("{}CARD", world.own): 1, format!("{}FORM", world.own): 1});
    assert_eq!(item["needlessMaterials"], needless);

    let list = |words: &[&str]| {
        let done = server.run(&[words, &["--as", "auditor", "--server", &data]].concat());
        assert_eq!(done.status, Some(0), "{done:?}");
        done.stdout
    };
    let lines = list(&["application", "list"]) + &list(&["item", "list", "demands"]);
    let now = schemas::date::rfc3339(tests::now_ms());
    let mut python = std::process::Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/indicators.py"))
        .args(["--now", &now])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut python.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    let counted = python.wait_with_output().unwrap();
    assert!(counted.status.success());
    assert_eq!(serde_json::from_slice::<Value>(&counted.stdout).unwrap()["items"], own["items"]);
    // The one who reports is not told what the person's licenses say.
    assert!(list(&["item", "list", "demands"]).contains("\"needless\":true"));
    let own = world.approval.items(&world.search(Listing::Demands)).await.unwrap().value;
    let mut reported = own.demands.iter().flat_map(|case| &case.stages).flat_map(|stage| &stage.demanded);
    assert!(reported.clone().count() > 0 && reported.all(|demand| !demand.needless));
    // It did use the license in the first case, and demanded it on paper all the same; in the second nobody had one.
    let used = own.demands.iter().flat_map(|case| &case.stages).flat_map(|stage| &stage.demanded);
    let used: Vec<&str> = used.filter(|demand| demand.used).map(|demand| demand.material.as_str()).collect();
    assert_eq!(used, [format!("{}CARD", world.own)]);
    // Each sees its own reports, operators and auditors all; no person stands in them.
    let bank = world.bank.items(&world.search(Listing::Demands)).await.unwrap();
    assert_eq!(bank.demands.len(), 0);
    assert!(!lines.contains(person.holder().number()));
}

#[tokio::test]
async fn an_import_that_makes_too_long_an_entry_is_refused_by_line() {
    let mut server = Setup::new().prepare().await;
    server.configure(|config| config.journal.segment_mib = 4);
    server.start();
    let operator = client(&server, "operator");
    let element = |number: usize| row(&format!("code=E{number};name=数据元;version=1"));
    let rows: Vec<_> = (0..1_000).map(element).collect();
    let import = |rows: &[BTreeMap<String, String>]| ItemsImport {
        list: DictionaryList::Elements,
        source: "源".repeat(500),
        first_line: Some(11),
        rows: rows.to_vec(),
    };
    let body = serde_json::to_value(import(&rows)).unwrap();
    let call = Call::new(Route::ItemsImport, &body).key(&tests::key());
    let refused = server.party("operator").send(&call).await.expect(422);
    let error = &refused.json["errors"][0];
    let place: usize = error["pointer"].as_str().unwrap().strip_prefix("/rows/").unwrap().parse().unwrap();
    assert_eq!((refused.code(), error["rule"].as_str()), ("bad-items", Some("length")));
    assert!(error.to_string().contains(&format!("up to line {} ", place + 10)), "{error}");
    // As many as it says are taken.
    assert_eq!(operator.import_items(&import(&rows[..place])).await.unwrap().accepted, place as u64);
}
