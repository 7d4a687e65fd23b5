//! Registering, finding and changing partners.

use p2phub_proto::referral::v1::{
    Attribution, Contact, GetPartnerRequest, ListReferralsRequest, RegisterPartnerRequest, RegisterPartnerResponse,
    UpdatePartnerRequest, get_partner_request::Key,
};
use p2phub_tests::{
    builders::{registration, request_id},
    clients::Clients,
    refusal::{fields, refused},
};
use referral_svc::Clock;
use tonic::Code;

use super::{awards, ids, start};

fn contact(channel: &str, address: &str) -> Contact {
    Contact { channel: channel.to_owned(), address: address.to_owned() }
}

async fn register(clients: &mut Clients, request: RegisterPartnerRequest) -> RegisterPartnerResponse {
    clients.partners.register_partner(request).await.expect("a registration").into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_signup_is_kept_and_says_how_it_was_attributed() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let inviter = clients.register("inviter", "").await;
    assert!(
        inviter.referral_code.starts_with("P2P-") && inviter.referral_code.len() >= 12,
        "{}",
        inviter.referral_code
    );
    let lower = inviter.referral_code.to_lowercase();
    let padded = format!("  {lower} ");
    for (external_id, code, attribution, depth) in [
        ("by-code", inviter.referral_code.as_str(), Attribution::Attributed, 1),
        ("by-lower-case", &lower, Attribution::Attributed, 1),
        ("by-padded-code", &padded, Attribution::Attributed, 1),
        ("by-nothing", "", Attribution::NoCode, 0),
        ("by-nobodys-code", "P2P-ZZZZZZZZ", Attribution::UnknownCode, 0),
        ("by-nonsense", "не код", Attribution::UnknownCode, 0),
    ] {
        let answer = register(&mut clients, registration(external_id, code)).await;
        let partner = answer.partner.clone().expect("a partner");
        assert!(answer.created, "{external_id}");
        assert_eq!((answer.attribution(), partner.depth), (attribution, depth), "{external_id}");
        let referrer = if depth == 1 { inviter.partner_id.as_str() } else { "" };
        assert_eq!(partner.referrer_id, referrer, "{external_id}");
        assert_eq!(clients.partner(&partner.partner_id).await, partner, "{external_id}");
    }
    assert_eq!(clients.partner(&inviter.partner_id).await.direct_referrals, 3);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_again_changes_nothing() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let inviter = clients.register("inviter", "").await;
    let root = clients.register("root", "").await;
    let mut again = registration("root", &inviter.referral_code);
    again.first_name = "Another".to_owned();
    again.contacts = vec![contact("email", "root@example.org")];
    let answer = register(&mut clients, again).await;
    assert!(!answer.created);
    assert_eq!(answer.attribution(), Attribution::AlreadyRegistered);
    assert_eq!(answer.partner, Some(root.clone()));
    assert_eq!(clients.partner(&root.partner_id).await, root);
    assert_eq!(clients.partner(&inviter.partner_id).await, inviter);
    assert!(awards(&mut clients, &inviter.partner_id).await.is_empty());
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_telegram_identity_is_a_contact_unless_others_are_given() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let email = contact("email", "a@example.org");
    for (external_id, given, kept) in [
        ("telegram:12345", vec![], vec![contact("telegram", "12345")]),
        ("telegram:777", vec![email.clone()], vec![email]),
        ("telegram:somebody", vec![], vec![]),
        ("google:12345", vec![], vec![]),
    ] {
        let request = RegisterPartnerRequest { contacts: given, ..registration(external_id, "") };
        let partner = register(&mut clients, request).await.partner.expect("a partner");
        assert_eq!(partner.contacts, kept, "{external_id}");
        assert_eq!(clients.partner(&partner.partner_id).await, partner, "{external_id}");
    }
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_what_it_names_and_nothing_else() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let mut request = registration("telegram:1", "");
    (request.username, request.last_name, request.locale) = ("ann".to_owned(), "Lee".to_owned(), "ru".to_owned());
    let mut expected = register(&mut clients, request).await.partner.expect("a partner");
    let blank = UpdatePartnerRequest { partner_id: expected.partner_id.clone(), ..Default::default() };

    let email = contact("email", "ann@example.org");
    let steps = [
        blank.clone(),
        UpdatePartnerRequest { first_name: Some("Ann".to_owned()), locale: Some("en".to_owned()), ..blank.clone() },
        UpdatePartnerRequest { username: Some(String::new()), last_name: Some(String::new()), ..blank.clone() },
        UpdatePartnerRequest { contacts: vec![email.clone()], ..blank.clone() },
        UpdatePartnerRequest { clear_contacts: true, ..blank.clone() },
    ];
    for (number, step) in steps.into_iter().enumerate() {
        match number {
            1 => (expected.first_name, expected.locale) = ("Ann".to_owned(), "en".to_owned()),
            2 => (expected.username, expected.last_name) = (String::new(), String::new()),
            3 => expected.contacts = vec![email.clone()],
            4 => expected.contacts = Vec::new(),
            _ => {}
        }
        let step = UpdatePartnerRequest { request_id: request_id(), ..step };
        let answer = clients.partners.update_partner(step).await.expect("an update").into_inner().partner;
        assert_eq!(answer.as_ref(), Some(&expected), "step {number}");
        assert_eq!(clients.partner(&expected.partner_id).await, expected, "step {number}");
    }

    let unknown = UpdatePartnerRequest { request_id: request_id(), partner_id: request_id(), ..Default::default() };
    refused(clients.partners.update_partner(unknown).await, Code::NotFound, "PARTNER_NOT_FOUND");
    let both = UpdatePartnerRequest { request_id: request_id(), contacts: vec![email], clear_contacts: true, ..blank };
    let status = refused(clients.partners.update_partner(both).await, Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_eq!(fields(&status), ["clear_contacts"]);
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partner_is_found_by_each_key() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let partner = clients.register("somebody", "").await;
    for key in [
        Key::PartnerId(partner.partner_id.clone()),
        Key::ExternalId("somebody".to_owned()),
        Key::ReferralCode(partner.referral_code.clone()),
        Key::ReferralCode(partner.referral_code.to_lowercase()),
    ] {
        let request = GetPartnerRequest { key: Some(key) };
        let found = clients.partners.get_partner(request).await.expect("an answer").into_inner().partner;
        assert_eq!(found.as_ref(), Some(&partner));
    }
    let nobody = GetPartnerRequest { key: Some(Key::ExternalId("SOMEBODY".to_owned())) };
    refused(clients.partners.get_partner(nobody).await, Code::NotFound, "PARTNER_NOT_FOUND");
    pair.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn referrals_are_listed_level_by_level_the_earliest_first() {
    let pair = start(&Clock::default()).await;
    let mut clients = pair.clients.clone();
    let root = clients.register("root", "").await;
    let (mut children, mut grandchildren) = (Vec::new(), Vec::new());
    for index in 0..3 {
        children.push(clients.register(&format!("child-{index}"), &root.referral_code).await);
    }
    // The first child's are registered last: at level 2 too, the order is by registration.
    for index in [2, 1, 0] {
        grandchildren.push(clients.register(&format!("grandchild-{index}"), &children[index].referral_code).await);
    }
    for (level, expected) in [(0, &children), (1, &children), (2, &grandchildren), (3, &Vec::new())] {
        let (mut found, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListReferralsRequest { partner_id: root.partner_id.clone(), level, page_size: 2, page_token };
            let page = clients.partners.list_referrals(request).await.expect("a page").into_inner();
            assert!(page.partners.len() <= 2 && found.len() <= 3);
            found.extend(page.partners);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(ids(&found), ids(expected), "level {level}");
    }
    for level in [-1, 10] {
        let request = ListReferralsRequest { partner_id: root.partner_id.clone(), level, ..Default::default() };
        let status = refused(clients.partners.list_referrals(request).await, Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_eq!(fields(&status), ["level"]);
    }
    pair.finish().await;
}
