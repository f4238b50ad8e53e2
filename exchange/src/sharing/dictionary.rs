//! Dictionaries of items, materials and data elements, mappings, kept materials and reports of demands, as journaled.
//!
//! The routes of items alone write them. A crash leaves what the last entry says.

use ledger::{DocumentKind, Key, KeyedHash, Label};
use schemas::dictionary::{Element, IntendedUse, Item, List, Mapping, Material, Mode, Trust};
use schemas::holder::HolderRef;
use schemas::identifier::{LicenseTypeCode, Uscc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::gateway::parsed::Kept;
use crate::keyed::holder_key;
use crate::rights::mode;

/// An imported row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Imported<T> {
    /// The row.
    pub(crate) entry: T,
    /// The list that it is from, in words.
    pub(crate) source: String,
    /// When it was imported, ms since 1970.
    pub(crate) at_ms: u64,
    /// By which organisation.
    pub(crate) by: Uscc,
}

/// A row of a dictionary.
pub(crate) trait Entry: Clone + PartialEq + Serialize + DeserializeOwned {
    /// Its dictionary.
    const LIST: List;
    /// Owner of all entries of the dictionary, by which they are listed.
    const OWNER: Label;

    /// Its code.
    fn code(&self) -> &str;
    /// Its version.
    fn version(&self) -> u32;
    /// Its name.
    fn name(&self) -> &str;
}

macro_rules! entries {
    ($($name:ident $list:ident $owner:literal),+ $(,)?) => {
        $(impl Entry for $name {
            const LIST: List = List::$list;
            const OWNER: Label = *$owner;

            fn code(&self) -> &str {
                &self.code
            }

            fn version(&self) -> u32 {
                self.version
            }

            fn name(&self) -> &str {
                &self.name
            }
        })+
    };
}

entries! {
    Item Items b"dictionary:items",
    Material Materials b"dictionary:mater",
    Element Elements b"dictionary:eleme",
}

impl<T: Entry> Kept for Imported<T> {
    const KIND: DocumentKind = DocumentKind::DictionaryEntry;

    fn owners(&self) -> Vec<Label> {
        vec![T::OWNER]
    }
}

/// Key of an entry of a dictionary.
pub(crate) fn entry_key<T: Entry>(keyed: &KeyedHash, code: &str) -> Key {
    keyed.key("dictionary", &[T::LIST.name().as_bytes(), code.as_bytes()])
}

/// A mapping, and the version of the item that it was made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Mapped {
    /// The mapping.
    pub(crate) mapping: Mapping,
    /// Version of the item. Where the item has another one by now, the mapping is to be reviewed.
    pub(crate) item_version: u32,
}

impl Mapped {
    /// Whether the item has changed since, so that somebody has to look at the mapping again.
    pub(crate) fn is_under_review(&self, item: Option<&Item>) -> bool {
        item.is_none_or(|item| {
            item.cancelled
                || item.version != self.item_version
                || !item.materials.contains(&self.mapping.material)
        })
    }
}

impl Kept for Imported<Mapped> {
    const KIND: DocumentKind = DocumentKind::Mapping;
}

/// Key of a mapping.
pub(crate) fn mapping_key(keyed: &KeyedHash, item: &str, material: &str) -> Key {
    keyed.key("mapping", &[item.as_bytes(), material.as_bytes()])
}

/// A line of an organisation's list of intended uses (用证清单).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Intended {
    /// The line.
    pub(crate) use_: IntendedUse,
}

impl Intended {
    /// The modes that it allows, as bits.
    pub(crate) fn modes(&self) -> u8 {
        let named = |mode: &&mode::Mode| self.use_.modes.iter().any(|name| name == mode.name());
        mode::Mode::ALL.iter().filter(named).fold(0, |modes, mode| modes | mode.bit())
    }
}

impl Kept for Imported<Intended> {
    const KIND: DocumentKind = DocumentKind::IntendedUse;
}

/// Key of a line of intended uses.
pub(crate) fn intended_key(
    keyed: &KeyedHash,
    organisation: &Uscc,
    item: &str,
    type_code: &LicenseTypeCode,
) -> Key {
    keyed.key("intended-use", &[organisation.as_bytes(), item.as_bytes(), type_code.as_bytes()])
}

/// Key of the counter of what an organisation asked for beyond its list, or beyond a line of it.
pub(crate) fn beyond_key(
    keyed: &KeyedHash,
    organisation: &Uscc,
    line: Option<(&str, &LicenseTypeCode)>,
) -> Key {
    match line {
        None => keyed.key("beyond", &[organisation.as_bytes()]),
        Some((item, type_code)) => {
            keyed.key("beyond-line", &[organisation.as_bytes(), item.as_bytes(), type_code.as_bytes()])
        }
    }
}

/// A material that a participant has verified for a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct KeptMaterial {
    /// Label of the holder, as hex: who is erased and comes back has another one.
    pub(crate) holder: String,
    /// Code of the material.
    pub(crate) material: String,
    /// Keyed hash of the material's SHA-256, as hex: state parts outlive their holder, so they hold no digest that anybody could try
    /// guesses against.
    pub(crate) digest: String,
    /// How far it is to be trusted.
    pub(crate) trust: Trust,
    /// The organisation that verified it.
    pub(crate) verifier: Uscc,
    /// When, ms since 1970.
    pub(crate) at_ms: u64,
    /// From this moment on it is gone, ms since 1970.
    pub(crate) ends_ms: u64,
}

impl KeptMaterial {
    /// The holder's label.
    pub(crate) fn label(&self) -> Option<Label> {
        let mut label = [0; 16];
        hex::decode_to_slice(&self.holder, &mut label).ok().map(|()| label)
    }
}

impl Kept for KeptMaterial {
    const KIND: DocumentKind = DocumentKind::KeptMaterial;

    fn owners(&self) -> Vec<Label> {
        self.label().into_iter().collect()
    }

    fn ends_ms(&self) -> u64 {
        self.ends_ms
    }
}

/// Key of a kept material: one for each holder, material and verifier.
pub(crate) fn kept_key(keyed: &KeyedHash, holder: &HolderRef, material: &str, verifier: &Uscc) -> Key {
    keyed.key("kept-material", &[&holder_key(keyed, holder), material.as_bytes(), verifier.as_bytes()])
}

/// The keyed hash of a material's digest.
pub(crate) fn digest_of(keyed: &KeyedHash, sha256: &[u8; 32]) -> String {
    hex::encode(keyed.key("material", &[sha256]))
}

/// Materials that were demanded on paper in one case, by stage. It names no holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Demands {
    /// Code of the item.
    pub(crate) item: String,
    /// Its version.
    pub(crate) version: u32,
    /// How many materials it takes.
    pub(crate) materials: usize,
    /// The organisation that reports.
    pub(crate) organisation: Uscc,
    /// The demands, stage by stage.
    pub(crate) stages: Vec<Stage>,
    /// From this moment on it is gone, ms since 1970.
    pub(crate) ends_ms: u64,
}

/// The demands of one stage of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Stage {
    /// The stage (环节).
    pub(crate) stage: String,
    /// When it was reported, ms since 1970.
    pub(crate) at_ms: u64,
    /// The materials.
    pub(crate) demanded: Vec<Demand>,
}

/// A material that was demanded on paper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Demand {
    /// Its code.
    pub(crate) material: String,
    /// The way in which it could have been done without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<Mode>,
    /// The exchange had it at hand: a license in force, an approval, or nobody needs it.
    #[serde(default)]
    pub(crate) needless: bool,
    /// An earlier stage of the case had done without it.
    #[serde(default)]
    pub(crate) again: bool,
    /// The organisation has used the holder's license of this kind in the same case.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) used: bool,
}

impl Kept for Demands {
    const KIND: DocumentKind = DocumentKind::Demands;

    fn ends_ms(&self) -> u64 {
        self.ends_ms
    }
}

/// Key of the demands of a case.
pub(crate) fn demands_key(keyed: &KeyedHash, organisation: &Uscc, item: &str, case: &str) -> Key {
    keyed.key("demands", &[organisation.as_bytes(), item.as_bytes(), case.as_bytes()])
}
