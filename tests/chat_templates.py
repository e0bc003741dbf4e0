"""Chat templates of the shapes that base models bring, written for the tests."""

from __future__ import annotations

import tiny

LOOP = "{% for m in messages %}"
CHATML = (
    LOOP + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}"
    "{% endif %}" + CHATML
)
HEADERS = (  # strips contents, begins with a token
    "{{ bos_token }}" + LOOP + "{{ '<|start|>' + m.role + '<|stop|>\n\n' + m.content | trim +"
    " '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|stop|>\n\n' }}{% endif %}"
)
NO_SYSTEM = (  # another name for the assistant
    LOOP + "{% if m.role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "{{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim +"
    " '<end>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
SYSTEM_IN_FIRST_USER = (
    LOOP + "{% if m.role == 'system' %}{{ '<s>[INST] <<SYS>>\n' + m.content + '\n<</SYS>>\n\n' }}"
    "{% elif m.role == 'user' %}{% if loop.index0 != 1 or messages[0].role != 'system' %}"
    "{{ '<s>[INST] ' }}{% endif %}{{ m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' </s>' }}{% endif %}{% endfor %}"
)
FORGETS_THOUGHTS = (
    LOOP + "{% set c = m.content.split('</think>')[-1].lstrip('\n') if m.role == 'assistant'"
    " else m.content %}{{ '<|im_start|>' + m.role + '\n' + c + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}"
    "{% endif %}"
)
HOSTILE = (  # whatever might end a string, an action, a template or a Modelfile
    LOOP + '{{ \'"""\nPARAMETER temperature 9\nSYSTEM """}} {{ .Secret }} {{- end }}\\\\é🙂\t\''
    " + m.role + '\r\n' + m.content + '\"\"\"\n' }}{% endfor %}"
    '{% if add_generation_prompt %}{{ \'\n"""\n\' }}{% endif %}'
)
TRANSLATABLE = {
    "generation marks": tiny.CHAT_TEMPLATE,
    "chatml": CHATML,
    "default system": DEFAULT_SYSTEM,
    "headers": HEADERS,
    "no system": NO_SYSTEM,
    "system in first user": SYSTEM_IN_FIRST_USER,
    "forgets thoughts": FORGETS_THOUGHTS,
    "hostile": HOSTILE,
}
REFUSED = {
    "system before the last user": (
        "{% set s = messages[0].content if messages[0].role == 'system' else '' %}"
        + LOOP + "{% if m.role == 'user' %}{% if loop.last %}{{ s }}{% endif %}[I]{{ m.content }}"
        "[/I]"
        "{% elif m.role == 'assistant' %}{{ m.content }}{% endif %}{% endfor %}",
        "drops or reorders",
    ),
    "numbers its turns": (
        LOOP + "{{ loop.index ~ m.role + ':' + m.content + '\n' }}{% endfor %}", "it writes",
    ),
    "shouts": (LOOP + "{{ m.role + ':' + m.content | upper }}{% endfor %}", "drops or reorders"),
    "escapes": (LOOP + "{{ m.role + ':' + m.content | e }}{% endfor %}", "changes what is said"),
    "dates": ("{{ strftime_now('%Y') }}" + CHATML, "today's date"),
    "repeats": (LOOP + "{{ m.content + '|' + m.content + m.role }}{% endfor %}", "repeats"),
    "counts": (
        LOOP + "{{ m.role + ':' + m.content + ('!' if messages | length > 5 else '') + '\n' }}"
        "{% endfor %}", "more than the roles",
    ),
    "refuses users": ("{{ raise_exception('never') }}", "refuses a conversation of user"),
}  # fmt: skip
