//! The participants of a quickstart's round, and the licenses that it issues.
//!
//! The quickstart and its samples alone use them. They are memory; a crash leaves the entries of the calls so far.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, bail};
use client::{
    Call, Client, Error, Exchanged, GrantCreate, GrantMode, License, Stage, Transition, UseContext,
};
use schemas::holder::HolderRef;
use schemas::identifier::CertificateIdentifier;
use schemas::state::{LicenseState, Operation};
use schemas::synthetic::SyntheticLicense;
use serde::de::DeserializeOwned;

use crate::calling;

/// Every how many licenses one is revoked.
pub(super) const REVOKE_EVERY: usize = 112;

/// A license issued by this run.
pub(super) struct Issued {
    pub(super) identifier: CertificateIdentifier,
    pub(super) envelope: Vec<u8>,
    pub(super) license: SyntheticLicense,
    pub(super) natural: bool,
}

impl Issued {
    pub(super) fn named(&self) -> License {
        License::by_identifier(self.identifier.clone())
    }

    /// Its first holder.
    pub(super) fn holder(&self) -> anyhow::Result<&HolderRef> {
        Ok(&self.license.holders.first().context("a license has a holder")?.1)
    }

    pub(super) fn transition(
        &self,
        operation: Operation,
        to: Option<LicenseState>,
        reason: &str,
    ) -> Transition {
        let reason = reason.to_owned();
        Transition { identifier: self.identifier.clone(), operation, to, reason, license: None }
    }

    /// A grant that a portal makes in the holder's place.
    pub(super) fn grant(&self, grantee: &str, fields: &[&str], until_ms: u64) -> anyhow::Result<GrantCreate> {
        Ok(GrantCreate {
            holder: self.holder()?.into(),
            grantee: grantee.parse()?,
            identifier: Some(self.identifier.clone()),
            identifiers: Vec::new(),
            type_code: None,
            type_codes: Vec::new(),
            modes: vec![GrantMode::Verify, GrantMode::Fields, GrantMode::Envelope],
            fields: fields.iter().map(|field| (*field).to_owned()).collect(),
            agent: None,
            item_code: None,
            purpose: None,
            scenario: None,
            user_name: None,
            until: schemas::date::rfc3339(until_ms),
            max_uses: None,
            assertion: None,
        })
    }
}

/// One participant, with everything it sent and received.
pub(super) struct Party {
    client: Client,
    pub(super) kept: Vec<Exchanged>,
}

impl Party {
    pub(super) async fn connect(folder: &Path, name: &str, address: SocketAddr) -> anyhow::Result<Self> {
        let client = Client::new(address.into(), &calling::participant(folder, name)?);
        client.connect().await.map_err(calling::ended)?;
        Ok(Self { client, kept: Vec::new() })
    }

    /// Makes a call that is to be permitted.
    pub(super) async fn ask<T: DeserializeOwned>(
        &mut self,
        call: impl for<'c> FnOnce(&'c Client) -> Call<'c, T>,
    ) -> anyhow::Result<T> {
        let answer = call(&self.client).with_proof().await.map_err(calling::ended)?;
        self.kept.push(answer.exchanged);
        Ok(answer.value)
    }

    /// Makes a call that is to be refused with a status.
    pub(super) async fn refused<T: DeserializeOwned>(
        &mut self,
        status: u16,
        call: impl for<'c> FnOnce(&'c Client) -> Call<'c, T>,
    ) -> anyhow::Result<()> {
        match call(&self.client).with_proof().await {
            Err(Error::Refused(refused)) if refused.status == status => self.kept.push(refused.exchanged),
            Err(error) => return Err(calling::ended(error)),
            Ok(_) => bail!("permitted instead of refused with status {status}"),
        }
        Ok(())
    }
}

pub(super) fn use_context(number: usize) -> UseContext {
    UseContext {
        user_name: "演示经办人".into(),
        item_code: "11440100MB2D00000000044010000001".to_owned(),
        item_name: "演示事项".to_owned(),
        business_code: format!("DEMO{number:08}"),
        cause: "演示: 核验申请材料".into(),
        stage: Stage::Acceptance,
        delay: None,
        purpose: None,
        scenario: None,
        acting_for: None,
        assertion: None,
    }
}
