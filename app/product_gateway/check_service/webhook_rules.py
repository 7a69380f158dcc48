"""The rules for webhook receivers, by code. Codes never change."""

from product_gateway.check_service.rules import Kit, Rule, Severity

E, W = Severity.ERROR, Severity.WARNING
_ON, _MESSAGES, _VERIFY, _RESPOND = "Turn it on", "Messages", "Verify the signature", "Respond"  # of docs/webhooks.md

# In the order of the report.
RULES = {
    rule.code: rule
    for rule in (
        Rule("reachable", E, "The receiver answers at its URL.", _ON,
             "Check the URL, and that the receiver runs and is reachable from this machine."),
        Rule("accepts", E, "A valid message gets 2XX.", _RESPOND,
             "Compare the secret with the gateway's, and verify as the guide shows."),
        Rule("no-redirects", E, "A message is not redirected.", _RESPOND,
             "Register the URL that the redirect leads to. The gateway does not follow redirects."),
        Rule("in-time", E, "Every message is answered before the gateway's timeout.", _RESPOND,
             "Store the message, respond, and do the work afterwards."),
        Rule("quick", W, "Every message is answered in less than half of the gateway's timeout.", _RESPOND,
             "Store the message, respond, and do the work afterwards. A late answer means a repeat."),
        Rule("all-types", E, "A message of each documented type gets 2XX.", _MESSAGES,
             "Respond with 2XX also to types that you do nothing with. Otherwise each is sent again for three days."),
        Rule("unknown-type", W, "A message of an unknown type gets 2XX.", _MESSAGES,
             "Ignore types that you do not know, and respond with 2XX. Types may be added."),
        Rule("unknown-members", W, "A message with unknown members gets 2XX.", _MESSAGES,
             "Ignore members that you do not know. Members may be added."),
        Rule("raw-body", E, "The signature is verified over the bytes of the body.", _VERIFY,
             "Verify the bytes as received, before you parse them. JSON that is written again has other bytes."),
        Rule("repeated", E, "A message that comes again gets 2XX.", _RESPOND,
             "Remember the webhook-id of messages that you have handled, and respond to a repeated one with 2XX."),
        Rule("rotation", E, "A message with two signatures is accepted if one of them is valid.", _ON,
             "Split webhook-signature at spaces, and accept any valid one. A new secret loses messages otherwise."),
        Rule("other-versions", W, "Signatures of unknown versions are skipped.", _VERIFY,
             "Skip signatures that do not start with v1 and a comma."),
        Rule("unsigned", E, "A message without its signature headers is refused.", _VERIFY,
             "Refuse a message that lacks webhook-id, webhook-timestamp or webhook-signature. Anyone could send it."),
        Rule("wrong-secret", E, "A message that was signed with another secret is refused.", _VERIFY,
             "Compare the signature with that of your secret. Otherwise anyone can send messages."),
        Rule("changed", E, "A message whose body, webhook-id or webhook-timestamp was changed is refused.", _VERIFY,
             "Compute the signature over these headers and the body. Kept messages can be sent as new otherwise."),
        Rule("old", E, "A message that is ten minutes old is refused.", _VERIFY,
             "Refuse a message whose webhook-timestamp is more than five minutes old: it may be replayed."),
        Rule("future", W, "A message from ten minutes in the future is refused.", _VERIFY,
             "Refuse a message whose webhook-timestamp is more than five minutes ahead: it may be replayed later."),
        Rule("malformed", E, "A message with malformed signature headers is refused.", _VERIFY,
             "Refuse an empty signature, one of an unknown version, and a timestamp that is no number."),
        Rule("clean-refusals", W, "A refused message gets 4XX.", _RESPOND,
             "Catch the errors of the verification, and respond with 400 or 401."),
    )
}  # fmt: skip
RECEIVERS = Kit("check-webhook", "Webhook receiver", "receiver", "Guide", RULES)
