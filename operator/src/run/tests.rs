use std::sync::Mutex;

use axum::{
    Json, Router,
    body::Bytes,
    http::{Method, StatusCode},
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;
use crate::fixtures::{Objects, context};

/// An API server with one Lease; tells how often it was written.
#[derive(Clone, Default)]
struct Leases {
    stored: Arc<Mutex<Option<Value>>>,
    writes: watch::Sender<u64>,
}

impl Leases {
    fn client(&self) -> Client {
        let leases = self.clone();
        let answer = move |method: Method, body: Bytes| std::future::ready(leases.answer(&method, &body));
        Client::new(Router::new().fallback(answer), "default")
    }

    fn answer(&self, method: &Method, body: &[u8]) -> (StatusCode, Json<Value>) {
        let mut stored = self.stored.lock().expect("free");
        if *method != Method::GET {
            let mut lease: Value = serde_json::from_slice(body).expect("JSON");
            self.writes.send_modify(|writes| *writes += 1);
            lease["metadata"]["resourceVersion"] = json!(self.writes.borrow().to_string());
            *stored = Some(lease);
        }
        match stored.clone() {
            Some(lease) => (StatusCode::OK, Json(lease)),
            None => (
                StatusCode::NOT_FOUND,
                Json(
                    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404,
                    "reason": "NotFound", "message": "no lease"}),
                ),
            ),
        }
    }

    fn holder(&self) -> Option<String> {
        let stored = self.stored.lock().expect("free");
        let holder = stored.as_ref()?.pointer("/spec/holderIdentity")?.as_str()?;
        Some(holder.to_owned()).filter(|holder| !holder.is_empty())
    }

    async fn written(&self, times: u64) {
        let mut writes = self.writes.subscribe();
        let until = *writes.borrow() + times;
        writes.wait_for(|writes| *writes >= until).await.expect("open");
    }
}

#[tokio::test(start_paused = true)]
async fn t62_the_lease_is_renewed_until_work_has_ended_and_given_up_then() {
    let leases = Leases::default();
    let context = context(leases.client(), Objects::default());
    let election = Arc::new(Election::new(&context, "me".to_owned()));
    let drained = CancellationToken::new();
    let candidate = {
        let (election, drained) = (Arc::clone(&election), drained.clone());
        tokio::spawn(async move { election.run(drained).await })
    };
    election.leads().wait_for(|leads| *leads).await.expect("open");
    let finish = Arc::new(Notify::new());
    let worker = {
        let finish = Arc::clone(&finish);
        tokio::spawn(async move { finish.notified().await })
    };
    let at_the_end = leases.clone();
    let left = async move {
        assert_eq!(
            at_the_end.holder().as_deref(),
            Some("me"),
            "held until all is done"
        );
    };
    let candidacy = Candidacy {
        election,
        candidate: Some(candidate),
        drained,
    };
    let ending = tokio::spawn(end(worker, left, candidacy));
    leases.written(3).await;
    assert!(!ending.is_finished(), "work is under way");
    assert_eq!(leases.holder().as_deref(), Some("me"));
    finish.notify_one();
    ending.await.expect("a stop in order");
    assert_eq!(leases.holder(), None, "given up at once");
}
