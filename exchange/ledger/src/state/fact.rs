//! Facts with versions, on which a decision may rest, and the kinds of documents.
//!
//! Values. Numbers of kinds stand in journals for good. A crash leaves nothing of a value.

use crate::names::{Key, Label};

schemas::numbered! {
    /// Kinds of documents: state that is neither license nor grant nor holder. The ledger keeps their bytes by key, and finds
    /// them by owner and in order; a new kind costs it this line.
    DocumentKind: u8 {
        /// A participant of the register.
        Participant = 1 "participant",
        /// A license type's definition.
        LicenseType = 2 "license-type",
        /// The rules that were fixed when the log was made.
        Rules = 3 "rules",
        /// A link between a holder and a guardian or agent.
        Link = 4 "link",
        /// A proposal of one operator, which another one approves.
        Proposal = 5 "proposal",
        /// A legal hold on a holder, by label.
        Hold = 6 "hold",
        /// Holidays and make-up days of a year.
        Calendar = 7 "calendar",
        /// A shared resource, by its code.
        Resource = 8 "resource",
        /// A batch of hosted rows, whose file lies beside the journal. The ledger makes it: see [`crate::Rows`].
        RowSegment = 9 "row-segment",
        /// An application to use a resource, and the approval that it becomes.
        Application = 10 "application",
        /// An address of a provider's that may be called.
        Address = 11 "address",
        /// A call to a provider without an outcome yet, or that failed a short while ago.
        Call = 12 "call",
        /// An item, a material or a data element of the dictionaries.
        DictionaryEntry = 13 "dictionary-entry",
        /// How a material of an item is done without.
        Mapping = 14 "mapping",
        /// A holder's material that a participant has verified.
        KeptMaterial = 15 "kept-material",
        /// Materials that were demanded on paper in a case.
        Demands = 16 "demands",
        /// A license and a row of a base resource that say different things.
        Mismatch = 17 "mismatch",
        /// A presentation code, by a keyed hash of it.
        PresentationCode = 18 "presentation-code",
        /// The policies in force.
        Policies = 19 "policies",
        /// A line of an organisation's list of intended uses.
        IntendedUse = 20 "intended-use",
    }
}

/// A fact with a version; version 0 is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fact {
    /// A license.
    License(Key),
    /// A grant, by its id.
    Grant(Key),
    /// A living holder, by keyed hash: a number made of the label, so that who is erased and appears again, under a
    /// new label, is another fact.
    Holder(Key),
    /// Which licenses name a holder, by label: their number, which only grows.
    Licenses(Label),
    /// A document.
    Document(DocumentKind, Key),
    /// An idempotency key: 1 while bound.
    Idempotency(Key),
    /// The epoch that new holders' keys are wrapped for: its number.
    Epoch,
}
