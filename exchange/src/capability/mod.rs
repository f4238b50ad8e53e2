//! The capabilities of the data listener: one folder a capability, one line a route in the table at the end.
//!
//! `exchange/README.md` says how to add one. The path alone reads the table. It holds no state: a crash leaves nothing
//! of it.

pub(crate) mod applications;
pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod bundle;
pub(crate) mod codes;
mod contract;
pub(crate) mod entries;
pub(crate) mod evaluation;
pub(crate) mod grants;
pub(crate) mod items;
pub(crate) mod licenses;
pub(crate) mod links;
pub(crate) mod operators;
pub(crate) mod pages;
pub(crate) mod participants;
#[cfg(test)]
mod reasons;
pub(crate) mod records;
pub(crate) mod resources;
pub(crate) mod trace;
#[cfg(test)]
mod tutorial;
pub(crate) mod usage;
pub(crate) mod verify;

pub(crate) use contract::{Capability, Relayed};

/// Runs `$path` with the capability of a route, which stands here once each: a route without one does not compile. `$none` is for
/// what is no route. Behind the second semicolon stand those that call others; they run `$relay`.
macro_rules! with_capability {
    ($route:expr, $none:expr, $capability:ident => $path:expr) => {
        with_capability!($route, $none, $capability => $path, $capability => $path)
    };
    ($route:expr, $none:expr, $capability:ident => $path:expr, $relayed:ident => $relay:expr) => {
        with_capability!(@ $route, $none, $capability => $path, $relayed => $relay;
            Issue: licenses::issue::Issue,
            Transition: licenses::transition::Transition,
            Search: licenses::search::Search,
            Retrieve: licenses::retrieve::Retrieve,
            Verify: verify::Verify,
            GrantCreate: grants::create::Create,
            GrantRevoke: grants::revoke::Revoke,
            GrantChange: grants::change::Change,
            GrantSearch: grants::search::Search,
            LinkMake: links::make::Make,
            LinkEnd: links::end::End,
            Trace: trace::Trace,
            LogQuery: audit::Query,
            ParticipantAdd: participants::add::Add,
            ParticipantChange: participants::change::Alter,
            ParticipantSuspend: participants::suspend::Suspend,
            ParticipantList: participants::list::List,
            Propose: operators::propose::Propose,
            Approve: operators::approve::Approve,
            ProposalList: operators::list::List,
            IssuedList: licenses::issued::Issued,
            ResourceWrite: resources::write::Write,
            ResourceTransition: resources::transition::Transition,
            ResourceSearch: resources::search::Search,
            ApplicationMake: applications::make::Make,
            ApplicationTransition: applications::transition::Transition,
            ApplicationList: applications::list::List,
            RecordsIngest: records::ingest::Ingest,
            RecordsQuery: records::query::Query,
            RecordsFeed: records::feed::Feed,
            ItemsImport: items::import::Import,
            ItemsSearch: items::search::Search,
            ItemsMaterials: items::materials::Materials,
            Bundle: bundle::Bundle,
            MaterialKeep: items::keep::Keep,
            ItemsDemanded: items::demanded::Demanded,
            RecordsCompare: records::compare::Compare,
            RecordsMismatches: records::mismatches::Mismatches,
            VerifyBatch: batch::Batch,
            PolicyShow: operators::policies::Show,
            CodeMint: codes::mint::Mint,
            CodeEnd: codes::end::End,
            CodeScan: codes::scan::Scan,
            Usage: usage::Usage,
            Evaluation: evaluation::Evaluation,
            Evaluations: evaluation::Evaluations,
            ;
            RecordsCall: records::call::Call,
        )
    };
    (@ $given:expr, $none:expr, $capability:ident => $path:expr, $relayed:ident => $relay:expr;
        $($route:ident: $($place:ident)::+,)+; $($called:ident: $($there:ident)::+,)+) => {
        match $given {
            $(schemas::routes::Route::$route => {
                type $capability = $crate::capability::$($place)::+;
                $path
            })+
            $(schemas::routes::Route::$called => {
                type $relayed = $crate::capability::$($there)::+;
                $relay
            })+
            schemas::routes::Route::None | schemas::routes::Route::System => $none,
        }
    };
}
pub(crate) use with_capability;
