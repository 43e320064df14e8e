//! Https: whom the system trusts is believed, nobody else.

use std::process::Command;
use std::sync::Arc;

use dormouse::{ClientError, RawClient};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Where the child process finds the server.
const SERVER: &str = "DORMOUSE_TEST_TLS_SERVER";

/// Answers every request with an empty listing. The certificate, and the address.
async fn serve() -> (String, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Who does not trust us goes away in the middle.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            if stream.read(&mut request).await.is_ok_and(|length| length > 0) {
                let body = r#"{"workflows":[]}"#;
                let length = body.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            }
        }
    });
    (cert.pem(), url)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let (_, url) = serve().await;
    let refused = RawClient::new(&url).unwrap().tries(1).list(&Default::default(), 1).await.unwrap_err();
    assert!(matches!(&refused, ClientError::Transport { .. }), "{refused:?}");
    assert!(refused.to_string().to_lowercase().contains("certificate"), "{refused}");
}

/// Certificates are read once a process, so one of its own is told whom to trust.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_the_system_trusts_is_believed() {
    if let Ok(url) = std::env::var(SERVER) {
        let runs = RawClient::new(&url).unwrap().tries(1).list(&Default::default(), 1).await.unwrap();
        assert!(runs.is_empty());
        return;
    }
    let (pem, url) = serve().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "tls::a_certificate_that_the_system_trusts_is_believed", "--nocapture"])
        .env(SERVER, url)
        .env("SSL_CERT_FILE", file.path());
    let output = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
