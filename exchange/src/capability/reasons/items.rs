//! The same for service items: a question reads the rows of its item and nothing else.

use ledger::DocumentKind;
use schemas::codes::Code;
use schemas::dictionary::{Item, Mapping, Material, Mode};
use serde_json::json;

use super::{World, document, merged, use_context};
use crate::capability::items::demanded::Demanded;
use crate::capability::items::keep::Keep;
use crate::capability::items::materials::Materials;
use crate::participant::Participant;
use crate::sharing::dictionary::{Imported, Mapped, entry_key, mapping_key};

const MATERIALS: usize = 20;

/// A world with so many items, each with as many mappings; they are numbered.
fn world(items: usize) -> World {
    let mut world = World::new();
    let (department, by) = (world.approval.organisation, world.operator.organisation);
    let materials: Vec<String> = (0..MATERIALS).map(|place| format!("M{place}")).collect();
    for place in 0..items {
        let code = place.to_string();
        let imported = |entry| Imported { entry, source: "测试".to_owned(), at_ms: 0, by };
        let item = Item {
            code: code.clone(),
            name: "测试事项".to_owned(),
            version: 1,
            department,
            materials: materials.clone(),
            result: None,
            cancelled: false,
        };
        for material in &materials {
            let mapping = Mapping {
                item: code.clone(),
                material: material.clone(),
                mode: Mode::Drop,
                resource: None,
                type_code: None,
                fields: Vec::new(),
                cancelled: false,
            };
            let key = mapping_key(&world.table.keyed, &code, material);
            let mapped = document(&Imported {
                entry: Mapped { mapping, item_version: 1 },
                source: "测试".to_owned(),
                at_ms: 0,
                by,
            });
            world.table.documents.insert((DocumentKind::Mapping.number(), key), mapped);
        }
        let key = entry_key::<Item>(&world.table.keyed, &code);
        let item = document(&imported(item));
        world.table.documents.insert((DocumentKind::DictionaryEntry.number(), key), item);
    }
    world
}

#[test]
fn a_question_reads_the_rows_of_its_item_among_ten_thousand() {
    let ask = merged(json!({}), &json!({"use": use_context()}));
    let reads = |items| {
        let world = world(items);
        world.counted::<Materials>(&world.approval, &ask).expect("permitted").1
    };
    // The policies, the item, and of each material its entry and its mapping.
    assert_eq!((reads(2), reads(500)), (2 + 2 * MATERIALS, 2 + 2 * MATERIALS));
}

#[test]
fn a_question_about_a_person_takes_a_right_for_what_it_names() {
    let world = world(2);
    let ask = |more| {
        let body = merged(json!({"use": use_context(), "holder": world.holder()}), &more);
        world.ask::<Materials>(&world.bank, &body).map_err(|refusal| refusal.code)
    };
    assert_eq!(ask(json!({})), Ok(()), "and is told nothing");
    // The grant of the small province is for another mode, and the item takes no license.
    assert_eq!(ask(json!({"grants": [hex::encode(super::ID)]})), Err(Code::NotPermitted));
    assert_eq!(ask(json!({"holder": null, "grants": ["00"]})), Err(Code::MalformedRequest));
    let unknown = json!({"use": {"userName": "测试", "itemCode": "none", "itemName": "测试", "businessCode": "1", "cause": "测试", "stage": "受理"}});
    assert_eq!(ask(unknown), Err(Code::UnknownItem));
}

#[test]
fn a_report_and_a_kept_material_take_a_use_of_the_day_like_others() {
    let mut world = world(2);
    let caller = Participant { daily_quota: Some(1), ..world.approval.clone() };
    let by = world.operator.organisation;
    let entry = Material::read(
        &[("code", "M0"), ("name", "材料"), ("version", "1"), ("origin", "government")]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    )
    .expect("a material");
    let key = entry_key::<Material>(&world.table.keyed, "M0");
    let material = document(&Imported { entry, source: "测试".to_owned(), at_ms: 0, by });
    world.table.documents.insert((DocumentKind::DictionaryEntry.number(), key), material);
    let keep = json!({
        "holder": world.holder(), "material": "M0", "digest": "0".repeat(64), "trust": "B", "until": until(),
        "use": use_context(),
    });
    let keep = keep.to_string();
    let report = json!({"demanded": ["M0"], "use": use_context()}).to_string();
    let asked = |world: &World| {
        let kept = world.ask::<Keep>(&caller, &keep).map_err(|refusal| refusal.code);
        (kept, world.ask::<Demanded>(&caller, &report).map_err(|refusal| refusal.code))
    };
    assert_eq!(asked(&world), (Ok(()), Ok(())));
    let key = world.table.keyed.key("quota", &[caller.organisation.as_bytes(), b"uses"]);
    let today = crate::sharing::clock::day_of(super::NOW_MS);
    world.table.counters.insert((key, u32::try_from(today.days()).expect("a day")), 1);
    assert_eq!(asked(&world), (Err(Code::QuotaSpent), Err(Code::QuotaSpent)));
}

/// A day to come.
fn until() -> String {
    let today = crate::sharing::clock::day_of(super::NOW_MS);
    schemas::date::Date::from_days(today.days() + 30).expect("a day").to_string()
}
