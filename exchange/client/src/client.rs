//! The client: a method a route.
//!
//! Any task may use a clone. It keeps nothing on disk.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemas::routes::Route;
use serde::Serialize;
use verifier::trust::Trust;

use crate::Endpoint;
use crate::answer::*;
use crate::call::{Call, DEADLINE, Retry};
use crate::error::Error;
use crate::request::*;
use crate::signing::Signing;
use crate::tls::Tls;
use crate::transport::{Connection, Fetched, Lost, Outgoing};

/// A client of one listener. Its copies share one connection, which is opened by the first call and opened again when it has
/// ended. Over HTTP/2 calls run side by side; over HTTP/1.1 they follow each other.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) connection: Connection,
    pub(crate) trust: Option<Arc<Trust>>,
    pub(crate) signing: Option<Signing>,
    pub(crate) retry: Retry,
    pub(crate) deadline: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.shared.connection.endpoint)
    }
}

/// The parts of a client.
#[derive(Clone, Debug)]
pub struct Builder {
    endpoint: Endpoint,
    tls: Tls,
    http1: bool,
    trust: Option<Arc<Trust>>,
    signing: Option<Signing>,
    retry: Retry,
    deadline: Duration,
}

impl Builder {
    /// Signs every change of state with this key.
    #[must_use]
    pub fn sign(self, signing: Signing) -> Self {
        Self { signing: Some(signing), ..self }
    }

    /// Every answer must be proven by this trust. One whose receipt is not valid is an [`Error::Unproven`], whatever it says.
    #[must_use]
    pub fn trust(self, trust: impl Into<Arc<Trust>>) -> Self {
        Self { trust: Some(trust.into()), ..self }
    }

    /// Speaks HTTP/1.1 although the server speaks HTTP/2 too: one request at a time.
    #[must_use]
    pub fn http1(self) -> Self {
        Self { http1: true, ..self }
    }

    /// Sends again in this way.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// A call may take so long, unless it says otherwise.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The client. Nothing is sent before its first call.
    #[must_use]
    pub fn build(self) -> Client {
        let Self { endpoint, tls, http1, trust, signing, retry, deadline } = self;
        let protocols: &[&[u8]] = if http1 { &[b"http/1.1"] } else { &[b"h2", b"http/1.1"] };
        let mut config = tls.config();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let connection = Connection::new(endpoint, Arc::new(config));
        Client { shared: Arc::new(Shared { connection, trust, signing, retry, deadline }) }
    }
}

impl Client {
    /// A client that checks no receipt and sends again as is usual.
    pub fn new(endpoint: Endpoint, tls: &Tls) -> Self {
        Self::builder(endpoint, tls).build()
    }

    /// A client of another kind.
    #[must_use]
    pub fn builder(endpoint: Endpoint, tls: &Tls) -> Builder {
        Builder {
            endpoint,
            tls: tls.clone(),
            http1: false,
            trust: None,
            signing: None,
            retry: Retry::default(),
            deadline: DEADLINE,
        }
    }

    /// Opens the connection now, to find out whether anybody is there.
    ///
    /// # Errors
    /// [`Error::Unreachable`]
    pub async fn connect(&self) -> Result<(), Error> {
        let Shared { connection, deadline, .. } = &*self.shared;
        let why = match tokio::time::timeout(*deadline, connection.open()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Lost::Unreachable { why, .. } | Lost::NoAnswer { why, .. } | Lost::Request(why))) => why,
            Err(_) => format!("no connection within {deadline:?}"),
        };
        Err(Error::Unreachable { authority: connection.endpoint.authority().to_owned(), why })
    }

    /// Gets a path of the public listener, whatever its status.
    ///
    /// # Errors
    /// [`Error::Unreachable`] or [`Error::NoAnswer`]
    pub async fn get(&self, path: &str) -> Result<Fetched, Error> {
        let outgoing = Outgoing { body: None, path, headers: Vec::new() };
        let Shared { retry, deadline, .. } = &*self.shared;
        self.shared.fetch(&outgoing, None, *deadline, retry.patience).await
    }

    /// Any request of a route, such as one that is JSON already.
    pub fn call<T>(&self, route: Route, request: &(impl Serialize + ?Sized)) -> Call<'_, T> {
        // The words of serde may hold the request.
        let body = serde_json::to_vec(request).map(Into::into).map_err(|_| "it is no JSON".to_owned());
        Call::new(&self.shared, route, body)
    }

    /// Issues a license: `POST /v1/licenses`.
    pub fn issue(&self, request: &Issue) -> Call<'_, Issued> {
        self.call(Route::Issue, request)
    }

    /// Changes a license: `POST /v1/licenses/transition`.
    pub fn transition(&self, request: &Transition) -> Call<'_, Transitioned> {
        self.call(Route::Transition, request)
    }

    /// The index of a holder's licenses: `POST /v1/licenses/search`.
    pub fn search(&self, request: &Search) -> Call<'_, Found> {
        self.call(Route::Search, request)
    }

    /// A page of the caller's own licenses: `POST /v1/licenses/issued`.
    pub fn issued(&self, request: &IssuedList) -> Call<'_, IssuedPage> {
        self.call(Route::IssuedList, request)
    }

    /// The content of a license: `POST /v1/licenses/retrieve`.
    pub fn retrieve(&self, request: &Retrieve) -> Call<'_, Retrieved> {
        self.call(Route::Retrieve, request)
    }

    /// Whether a license is valid: `POST /v1/verify`.
    pub fn verify(&self, request: &Verify) -> Call<'_, Verified> {
        self.call(Route::Verify, request)
    }

    /// Makes a grant: `POST /v1/grants`.
    pub fn grant(&self, request: &GrantCreate) -> Call<'_, Granted> {
        self.call(Route::GrantCreate, request)
    }

    /// Ends a grant: `POST /v1/grants/revoke`.
    pub fn revoke_grant(&self, request: &GrantRevoke) -> Call<'_, Granted> {
        self.call(Route::GrantRevoke, request)
    }

    /// Pauses, resumes or narrows a grant. `POST /v1/grants/change`.
    pub fn change_grant(&self, request: &GrantChange) -> Call<'_, Granted> {
        self.call(Route::GrantChange, request)
    }

    /// A page of grants: `POST /v1/grants/search`.
    pub fn grants(&self, request: &GrantSearch) -> Call<'_, GrantPage> {
        self.call(Route::GrantSearch, request)
    }

    /// Mints a presentation code: `POST /v1/codes`.
    pub fn mint_code(&self, request: &CodeMint) -> Call<'_, Minted> {
        self.call(Route::CodeMint, request)
    }

    /// Ends a presentation code: `POST /v1/codes/end`.
    pub fn end_code(&self, request: &CodeEnd) -> Call<'_, CodeEnded> {
        self.call(Route::CodeEnd, request)
    }

    /// Scans a presentation code, or as an inspector a permit: `POST /v1/codes/scan`.
    pub fn scan(&self, request: &CodeScan) -> Call<'_, Scanned> {
        self.call(Route::CodeScan, request)
    }

    /// The caller's own counters and a page of its own uses: `POST /v1/usage`.
    pub fn usage(&self, request: &UsageSearch) -> Call<'_, UsagePage> {
        self.call(Route::Usage, request)
    }

    /// Registers a participant: `POST /v1/participants`.
    pub fn add_participant(&self, request: &Register) -> Call<'_, Registered> {
        self.call(Route::ParticipantAdd, request)
    }

    /// Changes a registration: `POST /v1/participants/change`.
    pub fn change_participant(&self, request: &Register) -> Call<'_, Registered> {
        self.call(Route::ParticipantChange, request)
    }

    /// Suspends a participant, or lifts that: `POST /v1/participants/suspend`.
    pub fn suspend_participant(&self, request: &Suspend) -> Call<'_, Registered> {
        self.call(Route::ParticipantSuspend, request)
    }

    /// A page of the register: `POST /v1/participants/list`.
    pub fn participants(&self, request: &List) -> Call<'_, ParticipantPage> {
        self.call(Route::ParticipantList, request)
    }

    /// Proposes what takes two operators: `POST /v1/admin/proposals`.
    pub fn propose(&self, request: &Propose) -> Call<'_, Proposed> {
        self.call(Route::Propose, request)
    }

    /// Approves a proposal: `POST /v1/admin/approve`.
    pub fn approve(&self, request: &Approve) -> Call<'_, Proposed> {
        self.call(Route::Approve, request)
    }

    /// A page of proposals: `POST /v1/admin/proposals/list`.
    pub fn proposals(&self, request: &List) -> Call<'_, ProposalPage> {
        self.call(Route::ProposalList, request)
    }

    /// The policies in force: `POST /v1/admin/policies`.
    pub fn policies(&self, request: &ShowPolicies) -> Call<'_, PoliciesInForce> {
        self.call(Route::PolicyShow, request)
    }

    /// The uses of a holder's licenses: `POST /v1/trace`.
    pub fn trace(&self, request: &Trace) -> Call<'_, TracePage> {
        self.call(Route::Trace, request)
    }

    /// A page of an auditor's query: `POST /v1/log/query`.
    pub fn query_log(&self, request: &LogQuery) -> Call<'_, AuditPage> {
        self.call(Route::LogQuery, request)
    }

    /// Lets somebody act for a holder: `POST /v1/links`.
    pub fn make_link(&self, request: &LinkMake) -> Call<'_, Linked> {
        self.call(Route::LinkMake, request)
    }

    /// Writes a resource's definition: `POST /v1/resources`.
    pub fn write_resource(&self, request: &ResourceWrite) -> Call<'_, ResourceWritten> {
        self.call(Route::ResourceWrite, request)
    }

    /// Publishes, suspends, resumes or withdraws a resource: `POST /v1/resources/transition`.
    pub fn transition_resource(&self, request: &ResourceTransition) -> Call<'_, ResourceWritten> {
        self.call(Route::ResourceTransition, request)
    }

    /// A page of the catalogue: `POST /v1/resources/search`.
    pub fn resources(&self, request: &ResourceSearch) -> Call<'_, ResourcePage> {
        self.call(Route::ResourceSearch, request)
    }

    /// Applies for a resource: `POST /v1/applications`.
    pub fn apply(&self, request: &Apply) -> Call<'_, Applied> {
        self.call(Route::ApplicationMake, request)
    }

    /// Takes a step of an application: `POST /v1/applications/transition`.
    pub fn transition_application(&self, request: &ApplicationTransition) -> Call<'_, Applied> {
        self.call(Route::ApplicationTransition, request)
    }

    /// A page of applications: `POST /v1/applications/list`.
    pub fn applications(&self, request: &ApplicationSearch) -> Call<'_, ApplicationPage> {
        self.call(Route::ApplicationList, request)
    }

    /// Brings rows of a hosted resource in: `POST /v1/records/ingest`.
    pub fn ingest_records(&self, request: &RecordsIngest) -> Call<'_, RecordsIngested> {
        self.call(Route::RecordsIngest, request)
    }

    /// A row of a hosted resource: `POST /v1/records/query`.
    pub fn query_records(&self, request: &RecordsQuery) -> Call<'_, QueriedRecord> {
        self.call(Route::RecordsQuery, request)
    }

    /// Calls the interface of a resource's provider for a row. The call is made once for an idempotency key: where its outcome is
    /// not known the answer says so.
    pub fn call_records(&self, request: &RecordsQuery) -> Call<'_, QueriedRecord> {
        self.call(Route::RecordsCall, request)
    }

    /// A page of a hosted resource's feed: `POST /v1/records/feed`.
    pub fn feed_records(&self, request: &RecordsFeed) -> Call<'_, FeedPage> {
        self.call(Route::RecordsFeed, request)
    }

    /// Brings rows of a dictionary or mappings in: `POST /v1/items/import`.
    pub fn import_items(&self, request: &ItemsImport) -> Call<'_, ItemsImported> {
        self.call(Route::ItemsImport, request)
    }

    /// A page of a dictionary, of mappings, or of what was demanded on paper: `POST /v1/items/search`.
    pub fn items(&self, request: &ItemsSearch) -> Call<'_, ItemsPage> {
        self.call(Route::ItemsSearch, request)
    }

    /// Which materials of an item need not be handed in: `POST /v1/items/materials`.
    pub fn materials(&self, request: &ItemsMaterials) -> Call<'_, ItemMaterials> {
        self.call(Route::ItemsMaterials, request)
    }

    /// One part of what a matter needs: `POST /v1/bundle`.
    pub fn bundle(&self, request: &Bundle) -> Call<'_, Bundled> {
        self.call(Route::Bundle, request)
    }

    /// Keeps a material that was verified: `POST /v1/items/keep`.
    pub fn keep_material(&self, request: &MaterialKeep) -> Call<'_, MaterialKept> {
        self.call(Route::MaterialKeep, request)
    }

    /// Reports what was demanded on paper: `POST /v1/items/demanded`.
    pub fn report_demanded(&self, request: &ItemsDemanded) -> Call<'_, DemandsCounted> {
        self.call(Route::ItemsDemanded, request)
    }

    /// A license against its row of a base resource: `POST /v1/records/compare`.
    pub fn compare_records(&self, request: &RecordsCompare) -> Call<'_, Comparison> {
        self.call(Route::RecordsCompare, request)
    }

    /// A page of licenses and base resources that disagree: `POST /v1/records/mismatches`.
    pub fn mismatches(&self, request: &MismatchSearch) -> Call<'_, MismatchPage> {
        self.call(Route::RecordsMismatches, request)
    }

    /// Whether a use of a license would be permitted: `POST /access/v1/evaluation`.
    pub fn evaluate(&self, request: &Evaluation) -> Call<'_, Evaluated> {
        self.call(Route::Evaluation, request)
    }

    /// The same of many uses: `POST /access/v1/evaluations`.
    pub fn evaluate_many(&self, request: &Evaluations) -> Call<'_, EvaluatedMany> {
        self.call(Route::Evaluations, request)
    }

    /// Ends that: `POST /v1/links/end`.
    pub fn end_link(&self, request: &LinkEnd) -> Call<'_, Linked> {
        self.call(Route::LinkEnd, request)
    }
}
