//! The demo's DNS: a few names over UDP on loopback, NXDOMAIN for everything else.

use std::net::SocketAddr;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{MX, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

/// Domains that publish SPF, DMARC and an MX.
const DOMAINS: &[&str] = &["bank.example", "uni.example"];

/// Serves until the runtime ends; gives the address.
pub async fn serve() -> std::io::Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let address = socket.local_addr()?;
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let asked = buffer.get(..length).unwrap_or_default();
            if let Some(answer) = Message::from_vec(asked).ok().and_then(answer) {
                let _ = socket.send_to(&answer, peer).await;
            }
        }
    });
    Ok(address)
}

fn answer(mut message: Message) -> Option<Vec<u8>> {
    let query = message.queries.first()?.clone();
    let name = query.name().to_lowercase().to_string();
    let name = name.trim_end_matches('.');
    message.metadata.message_type = MessageType::Response;
    message.metadata.authoritative = true;
    let record = |data: RData| Record::from_rdata(query.name().clone(), 300, data);
    let plain = name.strip_prefix("_dmarc.").unwrap_or(name);
    let known = DOMAINS.contains(&plain);
    let text = |text: &str| RData::TXT(TXT::new(vec![text.to_owned()]));
    let data = match query.query_type() {
        RecordType::TXT if known && name != plain => Some(text("v=DMARC1; p=reject")),
        RecordType::TXT if known => Some(text("v=spf1 ip4:192.0.2.10 -all")),
        RecordType::MX if known && name == plain => {
            Some(RData::MX(MX::new(10, Name::from_ascii(format!("mx.{plain}.")).ok()?)))
        }
        _ => None,
    };
    match data {
        Some(data) => {
            message.add_answer(record(data));
        }
        None => {
            if !known {
                message.metadata.response_code = ResponseCode::NXDomain;
            }
            let root = Name::root();
            let soa = SOA::new(root.clone(), root.clone(), 1, 3600, 600, 86_400, 60);
            message.add_authority(Record::from_rdata(root, 60, RData::SOA(soa)));
        }
    }
    message.to_vec().ok()
}
