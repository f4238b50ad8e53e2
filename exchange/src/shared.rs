//! The handles that the public and the admin listener serve from.
//!
//! The app makes them, and each request gets a copy. They are memory, so a crash leaves nothing.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;

use crate::cosign::Cosigning;
use crate::current::Current;
use crate::gateway::Gateway;
use crate::reload::Standing;

/// The handles that the public and admin routers share.
#[derive(Clone)]
pub struct Shared {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Port of the data listener.
    pub data_port: u16,
    /// The signed trust bundle as served.
    pub trust_bundle: Current<str>,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// The checkpoints with their cosignatures.
    pub cosigning: Arc<Cosigning>,
    /// The state of certificates and trust bundle.
    pub standing: Arc<Standing>,
    /// True from the moment on at which the exchange stops.
    pub stopping: watch::Receiver<bool>,
}
