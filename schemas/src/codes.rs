//! Stable numbers and names: public codes of refusals, internal reasons, decisions.
//!
//! A number stands in journal entries that are kept for years; it is never used for anything else again.
//!
//! Anyone reads; a number is added and never changed. Pure tables; nothing to lose.

/// Declares an enum with a stable number and a stable name per variant.
#[macro_export]
macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident : $repr:ty { $($(#[doc = $doc:literal])+ $variant:ident = $number:literal $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr($repr)]
        pub enum $name { $($(#[doc = $doc])+ $variant = $number),+ }

        impl $name {
            /// Every value, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The stable number.
            pub const fn number(self) -> $repr {
                match self { $(Self::$variant => $number),+ }
            }

            /// The stable name, as clients, metrics and logs see it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Its meaning, in English.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii()),+ }
            }

            /// The value of a stable number.
            pub const fn from_number(number: $repr) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

numbered! {
    /// The decision that an entry records.
    Decision: u8 {
        /// The request was permitted.
        Permit = 1 "permit",
        /// The request was refused.
        Denial = 2 "denial",
        /// The exchange itself made the entry.
        System = 3 "system",
    }
}

numbered! {
    /// The public code of an answer: the `code` of a problem document, or `ok`.
    Code: u16 {
        /// Permitted.
        Ok = 0 "ok",
        /// No right to this, or no such license: the causes are not told apart.
        NotPermitted = 1 "not-permitted",
        /// The certificate's organisation is not in the participant register.
        UnknownParticipant = 2 "unknown-participant",
        /// The participant is suspended, or outside its valid time.
        ParticipantSuspended = 3 "participant-suspended",
        /// The participant's roles do not allow this route, type or issuer.
        WrongRole = 4 "wrong-role",
        /// No such route.
        NoSuchRoute = 5 "no-such-route",
        /// The route exists, with another method.
        MethodNotAllowed = 6 "method-not-allowed",
        /// The content type or encoding is not one the route takes.
        WrongContentType = 10 "wrong-content-type",
        /// The body is longer than the route takes.
        BodyTooLarge = 11 "body-too-large",
        /// The body is not UTF-8.
        BadUtf8 = 12 "bad-utf8",
        /// The body is not JSON, or a member has the wrong type or is missing.
        MalformedRequest = 13 "malformed-request",
        /// A member the request does not have.
        UnknownField = 14 "unknown-field",
        /// A member that stands twice.
        DuplicateKey = 15 "duplicate-key",
        /// The identifier cannot be read.
        BadIdentifier = 20 "bad-identifier",
        /// A check character is wrong: identifier, USCC or citizen number.
        WrongCheckDigit = 21 "wrong-check-digit",
        /// The holder's type code or number cannot be read.
        BadHolder = 22 "bad-holder",
        /// The serial is lower case, too long, or equals a holder's number.
        BadSerial = 23 "bad-serial",
        /// No such license type.
        UnknownType = 24 "unknown-type",
        /// The use context is missing or a part of it is missing or too long.
        BadUseContext = 25 "bad-use-context",
        /// The license's fields do not fit its type.
        BadFields = 26 "bad-fields",
        /// The grant cannot be made as asked.
        BadGrant = 27 "bad-grant",
        /// The participant cannot be registered as asked.
        BadParticipant = 28 "bad-participant",
        /// The envelope cannot be read at all.
        BadEnvelope = 29 "bad-envelope",
        /// A license with this type, issuer and serial exists.
        IdentifierExists = 30 "identifier-exists",
        /// The state table has no such transition.
        TransitionNotAllowed = 31 "transition-not-allowed",
        /// The idempotency key is bound to another request.
        IdempotencyConflict = 32 "idempotency-conflict",
        /// The route needs an `Idempotency-Key` of 16 to 64 characters.
        IdempotencyKeyRequired = 33 "idempotency-key-required",
        /// The participant exists, or does not.
        ParticipantConflict = 34 "participant-conflict",
        /// Too many failed matches on this license today.
        TooManyMismatches = 35 "too-many-mismatches",
        /// The organisation's permitted uses of today are spent.
        QuotaSpent = 36 "quota-spent",
        /// The participant does not hold the delay class that the use names.
        DelayNotAllowed = 37 "delay-not-allowed",
        /// The link between holder and agent cannot be made or ended as asked.
        BadLink = 38 "bad-link",
        /// The holder may not be erased; the detail says why.
        ErasureRefused = 41 "erasure-refused",
        /// The proposal cannot be made or approved; the detail says why.
        ProposalRefused = 42 "proposal-refused",
        /// The holder was erased, and the content with them.
        Erased = 43 "erased",
        /// One operator may not do this alone: it takes a proposal that another operator approves.
        NeedsTwoOperators = 44 "needs-two-operators",
        /// Not a decision: the queue is full.
        Overloaded = 50 "overloaded",
        /// Not a decision: this organisation's budget of journaled refusals is spent.
        TooManyRefusals = 51 "too-many-refusals",
        /// Not a decision: the request did not arrive in time.
        RequestTimeout = 52 "request-timeout",
        /// Not a decision: the journal is below its reserve.
        JournalFull = 53 "journal-full",
        /// Not a decision: the facts kept changing while it was decided.
        FactsChanged = 54 "facts-changed",
        /// Not a decision: the issuing authority's signer does not answer.
        SignerUnavailable = 55 "signer-unavailable",
        /// The exchange failed inside: not a decision, unless it was the request's record that could not be read.
        Internal = 56 "internal",
        /// The part of the journal that holds the record is archived and not at hand, or damaged.
        RecordUnavailable = 57 "record-unavailable",
        /// Not a decision: what arrived is not HTTP.
        MalformedHttp = 60 "malformed-http",
        /// Not a decision: request line and headers are too long.
        HeadTooLarge = 61 "head-too-large",
        /// Not a decision: the request has no `Host`, or more than one.
        BadHost = 62 "bad-host",
        /// Not a decision: the client waits for a `100 Continue` that is not sent over HTTP/2.
        ExpectationFailed = 63 "expectation-failed",
        /// Not a decision: the body broke off, or its framing is wrong.
        BrokenBody = 65 "broken-body",
        /// The issuing authority has no key in force that signs: the operator's to change, and no retry helps before.
        NoSigningKey = 73 "no-signing-key",
        /// Not a decision: the log is closed for good, and its successor answers.
        LogClosed = 74 "log-closed",
        /// The license is not in force: its signed bytes are given on express request only.
        LicenseEnded = 76 "license-ended",
        /// The definition is no license type's, or changes more of the one there is than licenses and grants allow.
        BadType = 77 "bad-type",
        /// The definition is no resource's, or changes more of the one there is than approvals allow.
        BadResource = 78 "bad-resource",
        /// No such resource in the catalogue.
        UnknownResource = 79 "unknown-resource",
        /// The resource's state does not allow this; the detail says why.
        ResourceRefused = 80 "resource-refused",
        /// The application cannot be made or answered as asked.
        BadApplication = 81 "bad-application",
        /// The application's state does not allow this; the detail says why.
        ApplicationRefused = 82 "application-refused",
        /// The use needs an approval that there is not; `accessRequest` says where to apply.
        ApprovalNeeded = 83 "approval-needed",
        /// The document is no calendar of a year's holidays with the number of its notice.
        BadCalendar = 84 "bad-calendar",
        /// The query or the rows do not fit the resource's definition.
        BadRecords = 85 "bad-records",
        /// The data provider cannot be reached; nothing was sent to it.
        ProviderUnavailable = 86 "provider-unavailable",
        /// The data provider's answer cannot be used: it broke off, or it does not fit the resource's definition.
        ProviderWrong = 87 "provider-wrong",
        /// The data provider did not answer within the resource's deadline.
        ProviderLate = 88 "provider-late",
        /// A call was made under this idempotency key, and its outcome is not known or not given again.
        OutcomeUnknown = 89 "outcome-unknown",
        /// The rows, the material or the day do not fit the dictionaries.
        BadItems = 90 "bad-items",
        /// No such service item in the dictionary, or nobody does it any more.
        UnknownItem = 91 "unknown-item",
        /// The participant signs its state changes, and the request's signature is missing or does not hold.
        BadRequestSignature = 92 "bad-request-signature",
        /// The holder's or user's identity assertion is missing, or does not hold; the detail says why.
        AssertionRefused = 93 "assertion-refused",
        /// The organisation has a contract, and the use names none of the purposes that it was registered with.
        PurposeNotAgreed = 94 "purpose-not-agreed",
        /// The policies cannot be read, or do not fit their schema.
        BadPolicy = 95 "bad-policy",
        /// The organisation has a list of intended uses, and the use asks for more than a line of it allows.
        BeyondIntendedUse = 98 "beyond-intended-use",
        /// The participant is not registered to act for the organisation that the use names, or that one is suspended.
        ActingForRefused = 99 "acting-for-refused",
        /// No line of the organisation's limits admits it to this interface for this type.
        UseNotAgreed = 102 "use-not-agreed",
        /// The organisation's permitted uses of this period are spent.
        RateExceeded = 103 "rate-exceeded",
        /// The connection comes from an address that the organisation's limits do not list.
        SourceNotAgreed = 104 "source-not-agreed",
        /// The organisation's limits do not list one of the fields, or the mode discloses more than them.
        FieldsNotAgreed = 105 "fields-not-agreed",
        /// The presentation code cannot be minted or ended as asked; the detail says why.
        BadCode = 106 "bad-code",
    }
}

impl Code {
    /// The code of a stable name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }

    /// HTTP status of an answer with this code (`Ok`: 200; issuing answers 201).
    pub const fn status(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::NotPermitted | Self::UnknownParticipant | Self::ParticipantSuspended | Self::WrongRole => {
                403
            }
            Self::NoSuchRoute => 404,
            Self::MethodNotAllowed => 405,
            Self::WrongContentType => 415,
            Self::BodyTooLarge => 413,
            Self::BadUtf8
            | Self::MalformedRequest
            | Self::UnknownField
            | Self::DuplicateKey
            | Self::IdempotencyKeyRequired
            | Self::MalformedHttp
            | Self::BrokenBody
            | Self::BadHost => 400,
            Self::BadIdentifier
            | Self::WrongCheckDigit
            | Self::BadHolder
            | Self::BadSerial
            | Self::UnknownType
            | Self::BadUseContext
            | Self::BadFields
            | Self::BadGrant
            | Self::BadParticipant
            | Self::BadEnvelope
            | Self::BadLink
            | Self::BadType
            | Self::BadResource
            | Self::UnknownResource
            | Self::BadApplication
            | Self::BadCalendar
            | Self::BadRecords
            | Self::BadItems
            | Self::BadPolicy
            | Self::UnknownItem
            | Self::BadCode => 422,
            Self::IdentifierExists
            | Self::TransitionNotAllowed
            | Self::IdempotencyConflict
            | Self::ParticipantConflict
            | Self::ErasureRefused
            | Self::ProposalRefused
            | Self::LicenseEnded
            | Self::ResourceRefused
            | Self::ApplicationRefused
            | Self::OutcomeUnknown
            | Self::NoSigningKey => 409,
            Self::Erased => 410,
            Self::TooManyMismatches
            | Self::QuotaSpent
            | Self::DelayNotAllowed
            | Self::NeedsTwoOperators
            | Self::ApprovalNeeded
            | Self::BadRequestSignature
            | Self::AssertionRefused
            | Self::PurposeNotAgreed
            | Self::BeyondIntendedUse
            | Self::ActingForRefused
            | Self::UseNotAgreed
            | Self::SourceNotAgreed
            | Self::FieldsNotAgreed => 403,
            Self::TooManyRefusals | Self::RateExceeded => 429,
            Self::RequestTimeout => 408,
            Self::HeadTooLarge => 431,
            Self::ExpectationFailed => 417,
            Self::Overloaded
            | Self::ProviderUnavailable
            | Self::ProviderWrong
            | Self::ProviderLate
            | Self::JournalFull
            | Self::FactsChanged
            | Self::SignerUnavailable
            | Self::Internal
            | Self::LogClosed
            | Self::RecordUnavailable => 503,
        }
    }

    /// Whether what caused it passes by itself, so that the same request may succeed a little later. A cause that lasts
    /// until an operator acts is not said to pass.
    pub const fn passes(self) -> bool {
        matches!(
            self,
            Self::Overloaded
                | Self::TooManyRefusals
                | Self::JournalFull
                | Self::FactsChanged
                | Self::SignerUnavailable
                | Self::Internal
                | Self::ProviderUnavailable
        )
    }

    /// One clear sentence for the caller; never a fact about a license or a person.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Ok => "Permitted.",
            Self::NotPermitted => "You have no right to this, or it does not exist.",
            Self::UnknownParticipant => "Your organisation is not in the participant register.",
            Self::ParticipantSuspended => {
                "Your organisation is suspended, or it or its certificate is outside its valid time."
            }
            Self::WrongRole => "Your organisation's roles do not allow this.",
            Self::NoSuchRoute => "There is no such route.",
            Self::MethodNotAllowed => "The route exists, but not with this method.",
            Self::WrongContentType => "The route does not take this content type or encoding.",
            Self::BodyTooLarge => "The body is longer than the route takes.",
            Self::BadUtf8 => "The body is not UTF-8.",
            Self::MalformedRequest => "The body is not the document that the route takes.",
            Self::UnknownField => "The body has a member that the route does not know.",
            Self::DuplicateKey => "The body has the same member twice.",
            Self::BadIdentifier => "The license identifier cannot be read.",
            Self::WrongCheckDigit => "A check character is wrong.",
            Self::BadHolder => "The holder's type code or number cannot be read.",
            Self::BadSerial => "A serial is 1 to 64 of 0-9A-Z and never a holder's number.",
            Self::UnknownType => "There is no such license type.",
            Self::BadUseContext => "The use context is missing, or a part of it is missing or too long.",
            Self::BadFields => "The license does not fit its type's definition.",
            Self::BadGrant => "The grant cannot be made as asked.",
            Self::BadParticipant => "The participant cannot be registered as asked.",
            Self::BadEnvelope => "The envelope cannot be read.",
            Self::IdentifierExists => "A license with this type, issuer and serial exists.",
            Self::TransitionNotAllowed => "The license's state does not allow this operation.",
            Self::IdempotencyConflict => "The idempotency key was used for another request.",
            Self::IdempotencyKeyRequired => {
                "The route needs an Idempotency-Key of 16 to 64 printable characters."
            }
            Self::ParticipantConflict => "The participant's registration does not allow this.",
            Self::TooManyMismatches => "Too many failed matches on this license today.",
            Self::QuotaSpent => "Your organisation's uses of today are spent.",
            Self::DelayNotAllowed => "Your organisation does not hold this delay class.",
            Self::BadLink => "The link cannot be made or ended as asked.",
            Self::ErasureRefused => "The holder may not be erased.",
            Self::ProposalRefused => "The proposal cannot be made or approved.",
            Self::Erased => "The content was erased with its holder's key.",
            Self::NeedsTwoOperators => "This takes a proposal that another operator approves.",
            Self::BadType => "The license type cannot be published as asked.",
            Self::BadResource => "The resource cannot be written as asked.",
            Self::UnknownResource => "There is no such resource in the catalogue.",
            Self::ResourceRefused => "The resource's state does not allow this.",
            Self::BadApplication => "The application cannot be made or answered as asked.",
            Self::ApplicationRefused => "The application's state does not allow this.",
            Self::ApprovalNeeded => "This takes an approval that your organisation does not have.",
            Self::BadCalendar => "This is no calendar of a year's holidays with the number of its notice.",
            Self::BadRecords => "The query or the rows do not fit the resource's definition.",
            Self::ProviderUnavailable => {
                "The data provider cannot be reached, and nothing was sent to it; try again."
            }
            Self::ProviderWrong => "The data provider's answer cannot be used.",
            Self::ProviderLate => "The data provider did not answer in time.",
            Self::OutcomeUnknown => {
                "A call was made under this idempotency key, and its outcome is not known or not given again."
            }
            Self::BadItems => "This does not fit the dictionaries of items and materials.",
            Self::UnknownItem => "There is no such service item in the dictionary.",
            Self::BadRequestSignature => "The request's signature is missing or does not hold.",
            Self::PurposeNotAgreed => "Your organisation's contract does not name this purpose.",
            Self::BadPolicy => "The policies cannot be read, or do not fit their schema.",
            Self::BeyondIntendedUse => "This is more than your organisation's list of intended uses allows.",
            Self::ActingForRefused => "Your organisation may not act for the one that the use names.",
            Self::AssertionRefused => "The identity assertion is missing, or it does not hold.",
            Self::UseNotAgreed => {
                "Your organisation's limits do not admit it to this interface for this type."
            }
            Self::RateExceeded => "Your organisation's uses of this period are spent.",
            Self::SourceNotAgreed => {
                "Your organisation's limits do not list the address that this comes from."
            }
            Self::FieldsNotAgreed => "Your organisation's limits do not list what this would disclose.",
            Self::BadCode => "The presentation code cannot be minted or ended as asked.",
            Self::LicenseEnded => {
                "The license is not in force. Its signed bytes need `includeEnded`, and of a grant the mode `ended`."
            }
            Self::NoSigningKey => {
                "The issuing authority has no signing key in force here; its operator makes one."
            }
            Self::LogClosed => "This log is closed for good; its successor answers.",
            Self::Overloaded => "The exchange is busy; try again.",
            Self::TooManyRefusals => "Too many refused requests; try again later.",
            Self::RequestTimeout => "The request did not arrive in time.",
            Self::JournalFull => "The journal has no room; try again later.",
            Self::FactsChanged => "The facts changed while this was decided; try again.",
            Self::SignerUnavailable => "The issuing authority's signer does not answer; try again.",
            Self::Internal => "The exchange cannot answer now; try again with the same idempotency key.",
            Self::BrokenBody => "The body broke off, or its framing is wrong.",
            Self::RecordUnavailable => {
                "The record cannot be read: it is archived or damaged, and the operator has to act."
            }
            Self::MalformedHttp => "What arrived is not a request of HTTP.",
            Self::HeadTooLarge => "Request line and headers are too long: at most 16 KiB together.",
            Self::BadHost => "A request has exactly one Host header.",
            Self::ExpectationFailed => {
                "No 100 Continue is sent over HTTP/2: send the body at once, without Expect."
            }
        }
    }
}

numbered! {
    /// The rule that a part of a request broke: the `rule` of an entry in a problem's `errors`.
    Rule: u8 {
        /// The member has to be there.
        Required = 1 "required",
        /// The object has no such member.
        UnknownMember = 2 "unknown-member",
        /// The member stands twice.
        DuplicateMember = 3 "duplicate-member",
        /// The value is of another JSON type.
        Type = 4 "type",
        /// The text has too few or too many characters.
        Length = 5 "length",
        /// The list or the object has too few or too many members.
        Count = 6 "count",
        /// The number is too small or too great.
        Range = 7 "range",
        /// The text is not of the form that is allowed.
        Pattern = 8 "pattern",
        /// The value is not one of the list.
        OneOf = 9 "one-of",
        /// The form is right and the check character wrong.
        CheckDigit = 10 "check-digit",
        /// Not a day that there is, in the form `YYYY-MM-DD`.
        Date = 11 "date",
        /// The text holds a character that no text of people and places has.
        Text = 12 "text",
        /// The value may not stand here.
        NotAllowed = 13 "not-allowed",
        /// The members cannot stand together, or not without each other.
        Combination = 14 "combination",
        /// The moment or the day is before another one that it has to follow.
        Order = 15 "order",
        /// The value stands twice where each may stand once.
        Distinct = 16 "distinct",
        /// Nothing with this name is registered.
        Unknown = 17 "unknown",
        /// Two members that say the same fact differ.
        Disagrees = 18 "disagrees",
    }
}

numbered! {
    /// Why, for insiders: stands in the journal's sealed part only.
    Reason: u16 {
        /// Nothing more than the public code.
        None = 0 "none",
        /// No such license.
        NoSuchLicense = 1 "no-such-license",
        /// The license is another holder's.
        OtherHolder = 2 "other-holder",
        /// A right is needed and no grant was named.
        NoGrant = 3 "no-grant",
        /// The grant named does not exist.
        NoSuchGrant = 4 "no-such-grant",
        /// The grant was made to another organisation.
        OtherGrantee = 5 "other-grantee",
        /// The grant has ended.
        GrantExpired = 6 "grant-expired",
        /// The grant was revoked.
        GrantRevoked = 7 "grant-revoked",
        /// The grant is paused.
        GrantPaused = 8 "grant-paused",
        /// The grant's uses are spent.
        GrantUsedUp = 9 "grant-used-up",
        /// The grant is for another license or type.
        GrantOtherTarget = 10 "grant-other-target",
        /// The grant does not cover this mode.
        GrantOtherMode = 11 "grant-other-mode",
        /// The grant does not cover these fields.
        GrantOtherFields = 12 "grant-other-fields",
        /// The grant is for another service item.
        GrantOtherItem = 13 "grant-other-item",
        /// No such holder.
        NoSuchHolder = 14 "no-such-holder",
        /// The license is another issuer's.
        OtherIssuer = 15 "other-issuer",
        /// The license to be taken over is not on its way out, or is another holder's.
        NotMovedOut = 16 "not-moved-out",
        /// No live link allows this agent to act for this holder.
        NoLink = 17 "no-link",
        /// A license of the holder is in force, or on its way to another authority.
        LicenseInForce = 21 "license-in-force",
        /// The holder is under legal hold.
        LegalHold = 22 "legal-hold",
        /// The retention period since the holder's last license ended is not over.
        RetentionPeriod = 23 "retention-period",
        /// The holder is not under legal hold.
        NoLegalHold = 24 "no-legal-hold",
        /// No such proposal.
        NoSuchProposal = 25 "no-such-proposal",
        /// The caller's organisation made the proposal itself.
        OwnProposal = 26 "own-proposal",
        /// The proposal was approved, has expired, its holder is erased, or the registration that it changes has changed.
        ProposalClosed = 27 "proposal-closed",
        /// The organisation that made the proposal is no active operator now.
        ProposerInactive = 28 "proposer-inactive",
        /// The approval does not name the registration that was proposed.
        OtherRegistration = 29 "other-registration",
        /// The portal that made the grant no longer vouches for holders.
        PortalInactive = 40 "portal-inactive",
        /// The approval does not name the definition or the address that was proposed.
        OtherDefinition = 41 "other-definition",
        /// The resource is suspended.
        ResourceSuspended = 42 "resource-suspended",
        /// The resource is withdrawn for good.
        ResourceWithdrawn = 43 "resource-withdrawn",
        /// The resource is a draft.
        ResourceDraft = 44 "resource-draft",
        /// The resource is published already.
        ResourcePublished = 45 "resource-published",
        /// No unit answers for one of the seven duties.
        DutyMissing = 46 "duty-missing",
        /// The resource is another provider's.
        OtherProvider = 47 "other-provider",
        /// The resource is of class 3, which is not shared.
        NotShared = 48 "not-shared",
        /// An application of the organisation for this resource and item is open or approved.
        ApplicationOpen = 49 "application-open",
        /// No such application, or one of others.
        NoSuchApplication = 50 "no-such-application",
        /// The application stands where this step does not start from, or it is another party's.
        ApplicationStep = 51 "application-step",
        /// The registered purposes of the organisation do not have this one.
        OutsidePurpose = 52 "outside-purpose",
        /// No application was made for this resource and item.
        NoApproval = 53 "no-approval",
        /// The application is not approved yet.
        ApprovalPending = 54 "approval-pending",
        /// The application was refused.
        ApprovalRefused = 55 "approval-refused",
        /// The approved use was stopped.
        ApprovalStopped = 56 "approval-stopped",
        /// The approval has ended.
        ApprovalEnded = 57 "approval-ended",
        /// The approval does not cover these fields.
        OutsideApproval = 58 "outside-approval",
        /// The resource is supplied in another way.
        OtherSupply = 59 "other-supply",
        /// The approval does not name the calendar that was proposed.
        OtherCalendar = 60 "other-calendar",
        /// No two operators allowed calls to the address of the resource's interface.
        AddressNotAllowed = 61 "address-not-allowed",
        /// The provider's host stands for an address that is not called: of this machine, of its link, or of a group.
        AddressForbidden = 62 "address-forbidden",
        /// The provider takes no connection.
        ProviderDown = 63 "provider-down",
        /// The provider's certificate does not prove that it is the provider.
        ProviderCertificate = 64 "provider-certificate",
        /// The provider failed too often in a row, and is left alone for a while.
        ProviderPaused = 65 "provider-paused",
        /// No more calls to the provider may be under way.
        ProviderBusy = 66 "provider-busy",
        /// The provider broke the connection off before its answer was whole.
        ProviderBroken = 67 "provider-broken",
        /// The provider answered with another HTTP status than 200, or in another form than JSON.
        ProviderStatus = 68 "provider-status",
        /// The provider's rows do not fit the resource's definition or the question, or are too long.
        ProviderRows = 69 "provider-rows",
        /// The resource's definition compares no license of the type.
        NotCompared = 80 "not-compared",
        /// The grant is for another purpose.
        GrantOtherPurpose = 81 "grant-other-purpose",
        /// The grant is for another field of use.
        GrantOtherScenario = 82 "grant-other-scenario",
        /// The grant is for another user of the organisation.
        GrantOtherUser = 83 "grant-other-user",
        /// A link by which an agent made the grant has ended, or allows less now.
        GrantLinkEnded = 84 "grant-link-ended",
        /// The agent may do no more than its link says, and this is more.
        BeyondLink = 85 "beyond-link",
        /// An identity provider is configured, and no assertion came.
        AssertionMissing = 90 "assertion-missing",
        /// The assertion is no signed JWT with the claims that it needs.
        AssertionMalformed = 91 "assertion-malformed",
        /// The assertion names no key of the identity provider, or another algorithm than the key's.
        AssertionKey = 92 "assertion-key",
        /// The assertion's signature is wrong.
        AssertionForged = 93 "assertion-forged",
        /// The assertion is of another identity provider, or for somebody else to take.
        AssertionAudience = 94 "assertion-audience",
        /// The assertion has expired, or is good for too long.
        AssertionExpired = 95 "assertion-expired",
        /// The assertion is not valid yet.
        AssertionEarly = 96 "assertion-early",
        /// The assertion is of another person than the request names.
        AssertionSubject = 97 "assertion-subject",
        /// The assertion says an assurance level that is not taken.
        AssertionLevel = 98 "assertion-level",
        /// The assertion was used before.
        AssertionUsed = 99 "assertion-used",
        /// The identity provider's keys are too old, and it does not answer.
        IdentityUnavailable = 100 "identity-unavailable",
        /// The policies in force do not permit it.
        PolicyDenied = 101 "policy-denied",
        /// A policy in force could not be evaluated, or none of them could be read.
        PolicyFailed = 102 "policy-failed",
        /// The list of intended uses has no line for the item and the license type.
        NoIntendedUse = 105 "no-intended-use",
        /// The line of the list of intended uses allows a lower mode or fewer fields.
        IntendedLess = 106 "intended-less",
        /// The registration does not name the organisation that the use is made for.
        ActingForUnregistered = 107 "acting-for-unregistered",
        /// The organisation that the use is made for is suspended, or outside its valid time.
        ActingForInactive = 108 "acting-for-inactive",
        /// The subject of an evaluation is not the caller or its user.
        OtherSubject = 109 "other-subject",
        /// No such presentation code, or one that is long gone.
        NoSuchCode = 110 "no-such-code",
        /// The presentation code has expired.
        CodeExpired = 111 "code-expired",
        /// The presentation code was used before, or shown by somebody else than its holder.
        CodeUsed = 112 "code-used",
        /// The presentation code was ended by its holder.
        CodeEnded = 113 "code-ended",
        /// The presentation code is for another class of verifiers.
        CodeOtherVerifier = 114 "code-other-verifier",
        /// The presentation code allows none of these fields.
        CodeOtherFields = 115 "code-other-fields",
        /// The presentation code is for another license type, or the scan names none that a personal code needs.
        CodeOtherType = 116 "code-other-type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_and_names_are_unique() {
        let numbers: HashSet<_> = Code::ALL.iter().map(|c| c.number()).collect();
        let names: HashSet<_> = Code::ALL.iter().map(|c| c.name()).collect();
        assert_eq!((numbers.len(), names.len()), (Code::ALL.len(), Code::ALL.len()));
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(*code));
        }
    }
}
