//! Messages that nobody could handle: to look at, to send again, to throw away.

use dormouse_core::api::{
    DiscardBody, DiscardedBody, DiscardedLetterBody, LetterBody, LetterShownBody, QuarantineBody, RedriveBody,
    RedrivenBody, RedrivenLetterBody,
};
use serde::Serialize;

use crate::error::ClientError;
use crate::raw::RawClient;

/// Letters that one request may name.
const MOST_IDS: usize = 50;

/// *Quarantine*: [`quarantine_page`](RawClient::quarantine_page), [`quarantine`](RawClient::quarantine),
/// [`quarantined`](RawClient::quarantined), [`redrive`](RawClient::redrive), [`redrive_page`](RawClient::redrive_page),
/// [`discard`](RawClient::discard). Only a deployed API has one; any other
/// answers with a [`ClientError::Problem`].
impl RawClient {
    /// A page of what is in quarantine, the oldest first, and the token of the next page.
    ///
    /// # Errors
    /// What the server says.
    pub async fn quarantine_page(&self, limit: usize, token: Option<&str>) -> Result<QuarantineBody, ClientError> {
        let mut query = vec![("limit", limit.clamp(1, 1000).to_string())];
        query.extend(token.map(|token| ("page_token", token.to_owned())));
        self.connection.read(self.connection.url(&["quarantine"], &query)?).await?.decode()
    }

    /// Up to `limit` letters, over as many pages as that takes.
    ///
    /// # Errors
    /// What the server says.
    pub async fn quarantine(&self, limit: usize) -> Result<Vec<LetterBody>, ClientError> {
        let mut letters = Vec::new();
        let mut token = None;
        while letters.len() < limit {
            let page = self.quarantine_page(limit - letters.len(), token.as_deref()).await?;
            letters.extend(page.letters);
            token = page.next_page_token;
            if token.is_none() {
                break;
            }
        }
        Ok(letters)
    }

    /// One letter, with what it says.
    ///
    /// # Errors
    /// What the server says: that there is no such letter, among others.
    pub async fn quarantined(&self, id: &str) -> Result<LetterShownBody, ClientError> {
        self.connection.read(self.connection.url(&["quarantine", id], &[])?).await?.decode()
    }

    /// Throws these letters away, and tells what became of each. A repeat after a lost answer finds those gone that were.
    ///
    /// # Errors
    /// What the server says; letters may have been thrown away before that.
    pub async fn discard(&self, ids: &[String]) -> Result<Vec<DiscardedLetterBody>, ClientError> {
        let mut letters = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MOST_IDS) {
            let body = encode(&DiscardBody { ids: ids.to_vec() })?;
            let url = self.connection.url(&["quarantine", "discard"], &[])?;
            letters.extend(self.connection.ask(url, body).await?.decode::<DiscardedBody>()?.letters);
        }
        Ok(letters)
    }

    /// Sends these letters again, each to the queue that it was meant for, and tells what became of each. A repeat
    /// after a lost answer finds those gone that were sent.
    ///
    /// # Errors
    /// What the server says; letters may have been sent before that.
    pub async fn redrive(&self, ids: &[String]) -> Result<Vec<RedrivenLetterBody>, ClientError> {
        let mut letters = Vec::with_capacity(ids.len());
        for ids in ids.chunks(MOST_IDS) {
            letters.extend(self.redriven(RedriveBody { ids: Some(ids.to_vec()), page_token: None }).await?.letters);
        }
        Ok(letters)
    }

    /// Sends letters again, the oldest first, as many as the server does at a time; the token leads to the others.
    ///
    /// # Errors
    /// What the server says; letters may have been sent before that.
    pub async fn redrive_page(&self, token: Option<&str>) -> Result<RedrivenBody, ClientError> {
        self.redriven(RedriveBody { ids: None, page_token: token.map(str::to_owned) }).await
    }

    async fn redriven(&self, body: RedriveBody) -> Result<RedrivenBody, ClientError> {
        let url = self.connection.url(&["quarantine", "redrive"], &[])?;
        self.connection.ask(url, encode(&body)?).await?.decode()
    }
}

fn encode(body: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(body).map_err(|error| ClientError::Invalid(format!("the ids are no JSON: {error}")))
}
