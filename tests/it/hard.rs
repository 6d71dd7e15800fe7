//! Reading measured against hard cases: mail that looks like what it is not.
//!
//! Goal: structure decides, words come last, and a doubt is personal mail. Method: one row for each
//! message in the style of a real program, with the reverse-path it is sent with; the class in
//! full.

use replyguard::judge::fingerprint::FingerprintKey;
use replyguard::judge::read_alone;
use replyguard::judge::site::Site;
use replyguard::mail::header::Completeness;
use replyguard::mail::message::Message;

/// What it is, its reverse-path (empty: not known), the message, the class.
type Row = (&'static str, &'static str, &'static str, &'static str);

fn class_of(path: &str, message: &str) -> String {
    let header = if path.is_empty() { String::new() } else { format!("Return-Path: {path}\n") };
    let message = Message::new(format!("{header}{message}"), Completeness::Whole);
    let case = read_alone(&message, &Site::default(), &FingerprintKey::new([1; 32]));
    let action = case.class.dsn_action().map(|action| format!(".{}", action.as_str()));
    format!("{}{}", case.class, action.unwrap_or_default())
}

fn assert_classes(rows: &[Row]) {
    let wrong = rows.iter().filter_map(|(what, path, message, class)| {
        let found = class_of(path, message);
        (found != *class).then(|| format!("{what}: {found} for {class}"))
    });
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// What people write about bounces and hand on of them.
const PEOPLE_ON_BOUNCES: &[Row] = &[
    (
        "Outlook, a bounce forwarded in line",
        "<joe@ours.test>",
        "From: Joe <joe@ours.test>\nTo: Help <help@theirs.test>\nSubject: FW: Undeliverable: Offer\n\
        References: <n@ours.test>\nIn-Reply-To: <n@ours.test>\nThread-Topic: Undeliverable: Offer\n\n\
        Can you look at this?\n\n-----Original Message-----\nFrom: Microsoft Outlook \n\
        Sent: Monday, 2 March 2026 10:00\nTo: Joe\nSubject: Undeliverable: Offer\n\n\
        Delivery has failed to these recipients or groups:\n\nann@b.test\n\
        The email address you entered couldn't be found.\n\nRemote Server returned '550 5.1.10'\n",
        "personal",
    ),
    (
        "Outlook, a bounce forwarded with its parts as attachments",
        "<joe@ours.test>",
        "From: Joe <joe@ours.test>\nSubject: Fwd: Undelivered Mail Returned to Sender\n\
        Content-Type: multipart/mixed; boundary=b\n\n--b\n\nSee below, 550 5.1.1.\n--b\n\
        Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.theirs.test\n\n\
        Final-Recipient: rfc822; ann@theirs.test\nAction: failed\nStatus: 5.1.1\n--b\n\
        Content-Type: message/rfc822\n\nFrom: joe@ours.test\nMessage-ID: <o@ours.test>\n\nhello\n--b--\n",
        "personal",
    ),
    (
        "Gmail, a bounce forwarded by a person",
        "<joe@ours.test>",
        "From: Joe <joe@ours.test>\nSubject: Fwd: Delivery Status Notification (Failure)\n\
        In-Reply-To: <n@google.test>\nReferences: <n@google.test>\n\n\
        ---------- Forwarded message ---------\n\
        From: Mail Delivery Subsystem <mailer-daemon@googlemail.test>\n\
        Subject: Delivery Status Notification (Failure)\nTo: <joe@ours.test>\n\n\
        ** Address not found **\n\nYour message wasn't delivered to ann@b.test.\n\n\
        550 5.1.1 The email account that you tried to reach does not exist.\n",
        "personal",
    ),
    (
        "Thunderbird, a bounce forwarded as attachment",
        "<joe@ours.test>",
        "From: Joe <joe@ours.test>\nSubject: Fwd: failure notice\n\
        Content-Type: multipart/mixed; boundary=b\n\n--b\n\nWhat does it mean?\n--b\n\
        Content-Type: message/rfc822; name=\"failure notice.eml\"\n\n\
        From: MAILER-DAEMON@b.test\nSubject: failure notice\n\
        Content-Type: multipart/report; report-type=delivery-status; boundary=c\n\n--c\n\n\
        --c\nContent-Type: message/delivery-status\n\nAction: failed\n--c--\n--b--\n",
        "personal",
    ),
    (
        "A person asks about a bounce, quoting it",
        "<joe@ours.test>",
        "From: Joe <joe@ours.test>\nSubject: Mail delivery failed?\n\nHi,\nI got this:\n\n\
        This message was created automatically by mail delivery software.\n\
        A message that you sent could not be delivered to one or more of its recipients.\n\n\
        ------ This is a copy of the message, including all the headers. ------\n\n\
        Received: from x by y\nMessage-ID: <m@a.test>\nFrom: joe@ours.test\n\nhello\n",
        "personal",
    ),
    (
        "A postmaster answers a question",
        "<postmaster@ours.test>",
        "From: Postmaster <postmaster@ours.test>\nSubject: Re: Undelivered mail\n\
        In-Reply-To: <q@b.test>\n\nYour message could not be delivered because the mailbox is full.\n\
        550 5.2.2 is what our server said.\n\n> Received: from x by y\n> Message-ID: <m@a.test>\n\
        > From: ann@b.test\n\n",
        "personal",
    ),
    (
        "A postmaster explains unasked",
        "<postmaster@ours.test>",
        "From: Postmaster <postmaster@ours.test>\nSubject: Your forwarding\n\n\
        Mail to your old address was not delivered last night; the remote host said: 550 no.\n",
        "personal",
    ),
    (
        "A quota warning of the system administrator",
        "<it@ours.test>",
        "From: System Administrator <it@ours.test>\nSubject: Your mailbox is almost full\n\n\
        Your mailbox is over quota: 450 MB of 500 MB. You cannot send any more.\n",
        "personal",
    ),
    (
        "A quota warning with a null reverse-path",
        "<>",
        "From: System Administrator <postmaster@ours.test>\nSubject: Quota warning\n\n\
        Your mailbox is full. 450 MB of 450 MB are used.\n",
        "notification",
    ),
    (
        "A parcel is late",
        "<>",
        "From: Shop <no-reply@shop.test>\nSubject: Your parcel is delayed\n\n\
        Delivery of your parcel has been delayed. It weighs 500 g and costs 450 EUR.\n",
        "notification",
    ),
    (
        "A parcel could not be delivered",
        "<>",
        "From: Shop <service@shop.test>\nSubject: Your package could not be delivered\n\n\
        We were unable to deliver your package today. Version 5.1.1 of our terms holds.\n",
        "notification",
    ),
    (
        "A parcel, in German",
        "<>",
        "From: Post <info@post.test>\nSubject: Ihr Paket ist verzögert\n\n\
        Die Zustellung Ihres Pakets hat sich verzögert.\n",
        "notification",
    ),
    (
        "A newsletter on deliverability",
        "<>",
        "From: News <news@shop.test>\nSubject: Why mail delivery failed in 2025\n\
        List-Unsubscribe: <https://shop.test/u>\nPrecedence: bulk\n\nHow to read a bounce.\n",
        "bulk",
    ),
    (
        "A person who writes in Japanese about failed mail",
        "<taro@ours.test>",
        "From: taro@ours.test\nSubject: 配信エラーについて\nContent-Type: text/plain; charset=utf-8\n\n\
        メールが送信できませんでした。確認してください。\n",
        "personal",
    ),
];

/// Absence and acknowledgement, by people and by programs.
const REPLIES: &[Row] = &[
    (
        "Outlook, German, internal form",
        "<joe@ours.test>",
        "From: Joe <joe@ours.test>\nSubject: Automatische Antwort: Angebot\nThread-Topic: Angebot\n\n\
        Ich bin bis Montag nicht im Haus.\n",
        "auto-reply",
    ),
    (
        "Exchange Online",
        "<>",
        "From: Joe <joe@ours.test>\nSubject: Automatic reply: Offer\nAuto-Submitted: auto-generated\n\
        X-Auto-Response-Suppress: All\nX-MS-Exchange-Inbox-Rules-Loop: joe@ours.test\n\
        In-Reply-To: <m@b.test>\n\nI am away.\n",
        "auto-reply",
    ),
    (
        "Gmail",
        "<>",
        "From: Joe <joe@ours.test>\nSubject: Away until Monday Re: Offer\nPrecedence: bulk\n\
        X-Autoreply: yes\nAuto-Submitted: auto-replied\nIn-Reply-To: <m@b.test>\n\nBack soon.\n",
        "auto-reply",
    ),
    (
        "French, by a mailbox, answering",
        "<jean@ours.test>",
        "From: jean@ours.test\nSubject: =?utf-8?q?R=C3=A9ponse_automatique=3A?= Offre\n\
        In-Reply-To: <m@b.test>\n\nJe suis absent.\n",
        "auto-reply",
    ),
    (
        "Japanese, by a mailbox, answering",
        "<taro@ours.test>",
        "From: taro@ours.test\nSubject: 自動応答: ご連絡\nReferences: <m@b.test>\n\
        Content-Type: text/plain; charset=utf-8\n\n不在にしております。\n",
        "auto-reply",
    ),
    (
        "Russian, by a mailbox, answering",
        "<ivan@ours.test>",
        "From: ivan@ours.test\nSubject: Автоматический ответ: Привет\nIn-Reply-To: <m@b.test>\n\nЯ в отпуске.\n",
        "auto-reply",
    ),
    (
        "Polish, Exchange",
        "<jan@ours.test>",
        "From: jan@ours.test\nSubject: Automatyczna odpowiedź: Oferta\nThread-Topic: Oferta\n\n\
        Jestem na urlopie.\n",
        "auto-reply",
    ),
    (
        "Spanish, a responder of the old kind",
        "<pepe@ours.test>",
        "From: pepe@ours.test\nSubject: Respuesta automática: Hola\nPrecedence: bulk\n\nEstoy de vacaciones.\n",
        "auto-reply",
    ),
    (
        "A vacation without any sign but the null reverse-path, German",
        "<>",
        "From: joe@ours.test\nSubject: Abwesenheit\n\nIch bin im Urlaub bis 5. Mai.\n",
        "auto-reply",
    ),
    (
        "The same, French",
        "<>",
        "From: joe@ours.test\nSubject: Bonjour\n\nJe suis actuellement absent du bureau.\n",
        "auto-reply",
    ),
    (
        "The same, Japanese",
        "<>",
        "From: joe@ours.test\nSubject: お知らせ\nContent-Type: text/plain; charset=utf-8\n\n\
        ただいま休暇をいただいております。\n",
        "auto-reply",
    ),
    (
        "The same, Russian",
        "<>",
        "From: joe@ours.test\nSubject: Ответ\n\nЯ в отпуске до понедельника.\n",
        "auto-reply",
    ),
    (
        "The same, Polish",
        "<>",
        "From: joe@ours.test\nSubject: Nieobecność\n\nJestem na urlopie.\n",
        "auto-reply",
    ),
    (
        "The same, Spanish",
        "<>",
        "From: joe@ours.test\nSubject: Ausencia\n\nEstaré ausente hasta el lunes.\n",
        "auto-reply",
    ),
    (
        "A null reverse-path and an answer, in words nobody knows",
        "<>",
        "From: joe@ours.test\nSubject: Re: hello\n\nKia ora.\n",
        "auto-reply",
    ),
    (
        "A vacation that repeats a bounce, a challenge and a receipt",
        "<>",
        "From: joe@ours.test\nSubject: Read: your message\nAuto-Submitted: auto-replied\n\
        In-Reply-To: <m@evil.test>\n\nI am away. You wrote:\n\nYour message could not be delivered.\n\
        Please verify that you are human.\n550 5.1.1 no such user\n\
        ------ This is a copy of the message, including all the headers. ------\n\n\
        Received: from x by y\nMessage-ID: <m@evil.test>\nFrom: v@bank.test\n\nbuy\n",
        "auto-reply",
    ),
    (
        "OTRS acknowledges a ticket",
        "<>",
        "From: Support <support@ours.test>\nSubject: [Ticket#2026030210000011] RE: Printer\n\
        In-Reply-To: <m@b.test>\nReferences: <m@b.test>\nPrecedence: bulk\nX-Loop: yes\n\
        Auto-Submitted: auto-generated\nX-Mailer: OTRS Mail Service\n\nWe got your question.\n",
        "auto-reply",
    ),
    (
        "RT acknowledges a ticket",
        "<rt@ours.test>",
        "From: Support via RT <rt@ours.test>\nSubject: [ours.test #17] AutoReply: Printer\n\
        In-Reply-To: <m@b.test>\nPrecedence: bulk\nX-RT-Loop-Prevention: ours.test\n\
        RT-Ticket: ours.test #17\nAuto-Submitted: auto-generated\n\nThis message is generated.\n",
        "auto-reply",
    ),
    (
        "Zendesk acknowledges a request",
        "<support@ours.test>",
        "From: Support <support@ours.test>\nSubject: Thank you for contacting support\n\
        In-Reply-To: <m@b.test>\nReferences: <m@b.test>\nX-Auto-Response-Suppress: All\n\
        Auto-Submitted: auto-generated\nX-Mailer: Zendesk Mailer\n\nYour request (17) has been received.\n",
        "auto-reply",
    ),
    (
        "Jira tells of a change, in its own thread",
        "<jira@ours.test>",
        "From: Joe (Jira) <jira@ours.test>\nSubject: [Jira] (ABC-17) We have received your printer\n\
        In-Reply-To: <JIRA.17@ours.test>\nReferences: <JIRA.17@ours.test>\nPrecedence: bulk\n\
        Auto-Submitted: auto-generated\nX-JIRA-FingerPrint: 1\n\nJoe is out of the office, he writes.\n",
        "bulk",
    ),
    (
        "A person on vacation",
        "<joe@ours.test>",
        "From: joe@ours.test\nSubject: Out of office next week\nIn-Reply-To: <m@b.test>\n\n\
        I will be out of the office from Monday, on vacation.\n",
        "personal",
    ),
    (
        "A person on vacation, German",
        "<joe@ours.test>",
        "From: joe@ours.test\nSubject: Abwesenheit: Vertretung\n\nIch bin im Urlaub, bitte übernimm.\n",
        "personal",
    ),
    (
        "A person answers an automatic reply",
        "<joe@ours.test>",
        "From: joe@ours.test\nSubject: AW: Automatische Antwort: Angebot\nIn-Reply-To: <m@b.test>\n\n\
        Schönen Urlaub!\n",
        "personal",
    ),
    (
        "A person tests an automatic reply",
        "<joe@ours.test>",
        "From: joe@ours.test\nSubject: Auto-reply: does yours work?\n\
        Thread-Topic: Auto-reply: does yours work?\n\nMine does not.\n",
        "personal",
    ),
    (
        "A person asks to be verified",
        "<joe@ours.test>",
        "From: joe@ours.test\nSubject: Sender verification\n\nPlease verify that you are a real person.\n",
        "personal",
    ),
    (
        "A landlord's mail program",
        "<ann@ours.test>",
        "From: ann@ours.test\nX-Mailer: VacationRentalSuite 3.1\nSubject: Re: The cottage\n\
        In-Reply-To: <m@b.test>\n\nIt is free in May.\n",
        "personal",
    ),
    (
        "A field that says no",
        "<ann@ours.test>",
        "From: ann@ours.test\nX-Auto-Reply: 0\nX-Autorespond: off\nSubject: Re: hello\n\nhello\n",
        "personal",
    ),
];

/// What machines send unasked.
const UNASKED: &[Row] = &[
    (
        "An order confirmation",
        "<orders@shop.test>",
        "From: Shop <orders@shop.test>\nSubject: We have received your order 450\n\
        Auto-Submitted: auto-generated\nX-Auto-Response-Suppress: All\n\nThank you for your order.\n",
        "notification",
    ),
    (
        "An order confirmation, German",
        "<>",
        "From: Shop <bestellung@shop.test>\nSubject: Ihre Bestellung 4711\n\n\
        Wir haben Ihre Bestellung erhalten. Gesamt: 550 EUR.\n",
        "notification",
    ),
    (
        "A new account to be confirmed",
        "<accounts@shop.test>",
        "From: accounts@shop.test\nSubject: Confirm your account\nAuto-Submitted: auto-generated\n\n\
        Click to confirm that you are human.\n",
        "notification",
    ),
    (
        "A newsletter with a null reverse-path",
        "<>",
        "From: News <news@shop.test>\nSubject: On vacation in May\nPrecedence: bulk\n\
        List-Unsubscribe: <https://shop.test/u>\nFeedback-ID: 1:shop\n\nEverything 50 % off.\n",
        "bulk",
    ),
    (
        "A marketing autoresponder",
        "<news@shop.test>",
        "From: News <news@shop.test>\nSubject: Lesson 3\nX-Mailer: Super Autoresponder 5\n\
        List-Unsubscribe: <https://shop.test/u>\n\nWelcome to lesson 3.\n",
        "bulk",
    ),
    (
        "An invitation is accepted",
        "<joe@ours.test>",
        "From: joe@ours.test\nSubject: Accepted: Planning\nIn-Reply-To: <m@b.test>\n\
        Content-Type: multipart/alternative; boundary=b\n\n--b\n\n\n--b\n\
        Content-Type: text/calendar; method=REPLY\n\nBEGIN:VCALENDAR\n--b--\n",
        "notification",
    ),
    (
        "A room accepts an invitation",
        "<>",
        "From: Room 1 <room@ours.test>\nSubject: Accepted: Planning\nIn-Reply-To: <m@b.test>\n\
        Content-Type: text/calendar; method=REPLY\n\nBEGIN:VCALENDAR\n",
        "notification",
    ),
    (
        "A journal report of a bounce",
        "<>",
        "From: Microsoft Exchange <MicrosoftExchange329e@ours.test>\nX-MS-Journal-Report:\n\
        Subject: Undeliverable: Offer\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\n\
        Sender: joe@ours.test\nRecipient: ann@b.test\n--b\nContent-Type: message/rfc822\n\n\
        Subject: Undeliverable: Offer\n\nIt could not be delivered.\n--b--\n",
        "notification",
    ),
    (
        "A monitor's alert on mail",
        "<>",
        "From: monitor@ours.test\nSubject: CRITICAL mail queue\nAuto-Submitted: auto-generated\n\n\
        450 messages in the queue.\n",
        "notification",
    ),
    (
        "A list hands on what a responder says",
        "<list-bounces@lists.test>",
        "From: joe@ours.test\nSubject: [list] Automatic reply: hello\nList-Id: <list.lists.test>\n\
        Precedence: list\nIn-Reply-To: <m@b.test>\n\nI am away.\n",
        "list",
    ),
];

/// Bounces and receipts in forms that leave much out.
const REPORTS: &[Row] = &[
    (
        "Exchange, the text alone",
        "<>",
        "From: System Administrator <postmaster@ours.test>\nSubject: Undeliverable: hello\n\n\
        Your message\n\n  To:      ann@b.test\n  Subject: hello\n\n\
        did not reach the following recipient(s):\n\nann@b.test on Mon, 2 Mar 2026\n",
        "dsn.failed",
    ),
    (
        "A parcel service's server fails a mail",
        "<>",
        "From: MAILER-DAEMON@parcel.test\nSubject: failure notice\n\n\
        <parcel@parcel.test>:\n550 5.1.1 no such user\n",
        "dsn.failed",
    ),
    (
        "A null reverse-path, words, and a server's refusal",
        "<>",
        "From: Mail <mail@ours.test>\nSubject: Your message\n\n\
        It could not be delivered. The server said: 550 5.7.1 refused your order\n",
        "dsn.failed",
    ),
    (
        "A full mailbox, in the words of a server",
        "<>",
        "From: MAILER-DAEMON@ours.test\nSubject: Returned\n\n<ann@ours.test>: mailbox is full (#5.2.2)\n",
        "dsn.failed",
    ),
    (
        "A report under a custom name, answering",
        "<>",
        "From: Zustelldienst <post@ours.test>\nSubject: Zurück: hallo\nAuto-Submitted: auto-replied\n\
        Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\n\
        --b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.ours.test\n\n\
        Final-Recipient: rfc822; ann@ours.test\nAction: delayed\n--b--\n",
        "dsn.delayed",
    ),
    (
        "A filter put a footer below a report",
        "<>",
        "From: MAILER-DAEMON@ours.test\nSubject: Undelivered\nContent-Type: multipart/mixed; boundary=o\n\n\
        --o\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\n--b\n\
        Content-Type: message/delivery-status\n\nAction: failed\n--b--\n--o\n\nfooter\n--o--\n",
        "dsn.failed",
    ),
    (
        "A user's mail program sends a receipt",
        "<joe@ours.test>",
        "From: joe@ours.test\nSubject: Return Receipt (displayed) - hello\nIn-Reply-To: <m@b.test>\n\
        Content-Type: multipart/report; report-type=disposition-notification; boundary=b\n\n--b\n\n\
        --b\nContent-Type: message/disposition-notification\n\nOriginal-Message-ID: <m@b.test>\n\
        Disposition: manual-action/MDN-sent-manually; displayed\n--b--\n",
        "mdn",
    ),
    (
        "A complaint about an automatic message",
        "<fbl@ours.test>",
        "From: fbl@ours.test\nSubject: Email Feedback Report\n\
        Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n\n\
        --b\nContent-Type: message/feedback-report\n\nFeedback-Type: abuse\n--b\n\
        Content-Type: message/rfc822\n\nAuto-Submitted: auto-generated\nSubject: buy\n\nbuy\n--b--\n",
        "feedback-report",
    ),
];

#[test]
fn what_people_write_about_bounces_is_theirs() {
    assert_classes(PEOPLE_ON_BOUNCES);
}

#[test]
fn replies_of_programs_are_told_from_those_of_people() {
    assert_classes(REPLIES);
}

#[test]
fn what_machines_send_unasked_answers_nothing() {
    assert_classes(UNASKED);
}

#[test]
fn reports_are_known_by_what_they_have() {
    assert_classes(REPORTS);
}

/// Goal: a person's words alone are never held. Method: whatever stands in the tables above, sent
/// by a person from a mailbox, as an answer and without its header, is personal.
#[test]
fn words_alone_make_no_response() {
    for row in [PEOPLE_ON_BOUNCES, REPLIES, UNASKED, REPORTS].concat() {
        let (what, _, message, _) = row;
        let (header, body) = message.split_once("\n\n").unwrap();
        let subject = header.lines().find(|line| line.starts_with("Subject: ")).unwrap();
        for prefix in ["Re: ", "Fwd: "] {
            let subject = subject.replace("Subject: ", &format!("Subject: {prefix}"));
            let answer = format!(
                "From: Joe <joe@ours.test>\n{subject}\nIn-Reply-To: <m@b.test>\n\
                Content-Type: text/plain; charset=utf-8\n\n{body}"
            );
            assert_eq!(class_of("<joe@ours.test>", &answer), "personal", "{what}");
            assert_eq!(class_of("", &answer), "personal", "{what}");
        }
    }
}
