"""The label words of the three classification tasks of the demo.

Every label is one word that is one token of MiniLM's WordPiece vocabulary, so a decoder answers with a single token.
"""

CLINC_TOPICS = {
    "banking": "money",
    "credit_cards": "credit",
    "kitchen_and_dining": "kitchen",
    "home": "home",
    "auto_and_commute": "car",
    "travel": "travel",
    "utility": "tools",
    "work": "work",
    "small_talk": "talk",
    "meta": "system",
}
"""CLINC150's ten domains, each as the word that a customer's router would use for it."""

WORDNET_TOPICS = (
    "animal",
    "artifact",
    "body",
    "communication",
    "food",
    "person",
    "place",
    "plant",
    "substance",
    "time",
)
"""Ten of WordNet's lexicographer files of nouns; their names are single words already."""

# Banking77 has 77 narrow intents and no domains. Intents are grouped by what the customer asks about, not by what went
# wrong: a declined cash withdrawal is "cash", a declined transfer "transfer". Questions about a price go to the thing
# that is priced, except where the price itself is the topic ("fee" on a statement, a rate of "exchange").
BANKING_INTENTS_BY_TOPIC = {
    "account": ("age_limit", "country_support", "edit_personal_details", "terminate_account"),
    "card": (
        "activate_my_card",
        "card_about_to_expire",
        "card_acceptance",
        "card_linking",
        "card_not_working",
        "contactless_not_working",
        "getting_spare_card",
        "visa_or_mastercard",
    ),
    "cash": (
        "atm_support",
        "card_swallowed",
        "cash_withdrawal_charge",
        "cash_withdrawal_not_recognised",
        "declined_cash_withdrawal",
        "pending_cash_withdrawal",
        "wrong_amount_of_cash_received",
    ),
    "delivery": ("card_arrival", "card_delivery_estimate", "order_physical_card"),
    "deposit": (
        "apple_pay_or_google_pay",
        "automatic_top_up",
        "balance_not_updated_after_cheque_or_cash_deposit",
        "pending_top_up",
        "top_up_by_bank_transfer_charge",
        "top_up_by_card_charge",
        "top_up_by_cash_or_cheque",
        "top_up_failed",
        "top_up_limits",
        "top_up_reverted",
        "topping_up_by_card",
        "verify_top_up",
    ),
    "exchange": (
        "card_payment_wrong_exchange_rate",
        "exchange_charge",
        "exchange_rate",
        "exchange_via_app",
        "fiat_currency_support",
        "supported_cards_and_currencies",
        "wrong_exchange_rate_for_cash_withdrawal",
    ),
    "fee": ("card_payment_fee_charged", "extra_charge_on_statement", "transfer_fee_charged"),
    "identity": ("unable_to_verify_identity", "verify_my_identity", "verify_source_of_funds", "why_verify_identity"),
    "payment": (
        "Refund_not_showing_up",
        "card_payment_not_recognised",
        "declined_card_payment",
        "direct_debit_payment_not_recognised",
        "pending_card_payment",
        "request_refund",
        "reverted_card_payment?",
        "transaction_charged_twice",
    ),
    "security": (
        "change_pin",
        "compromised_card",
        "get_physical_card",  # The rows of this intent ask where the PIN of a new card is.
        "lost_or_stolen_card",
        "lost_or_stolen_phone",
        "passcode_forgotten",
        "pin_blocked",
    ),
    "transfer": (
        "balance_not_updated_after_bank_transfer",
        "beneficiary_not_allowed",
        "cancel_transfer",
        "declined_transfer",
        "failed_transfer",
        "pending_transfer",
        "receiving_money",
        "transfer_into_account",
        "transfer_not_received_by_recipient",
        "transfer_timing",
    ),
    "virtual": (
        "disposable_card_limits",
        "get_disposable_virtual_card",
        "getting_virtual_card",
        "virtual_card_not_working",
    ),
}
BANKING_TOPICS = {intent: topic for topic, intents in BANKING_INTENTS_BY_TOPIC.items() for intent in intents}

LABELS = {
    "clinc": tuple(CLINC_TOPICS.values()),
    "wordnet": WORDNET_TOPICS,
    "banking": tuple(BANKING_INTENTS_BY_TOPIC),
}
PROMPTS = {
    "clinc": "Request: {text}\nTopic:",
    "wordnet": "Definition: {text}\nTopic:",
    "banking": "Customer: {text}\nTopic:",
}
"""The prompt of each task; the answer that follows is a space and one of the task's labels."""
