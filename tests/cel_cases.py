"""Expressions and objects with the answer that Kubernetes gives.

Used twice: ``tests/unit/core/test_cel.py`` asks our evaluator, and ``tests/cluster/test_cel_parity.py`` asks both it and real
ValidatingAdmissionPolicies, on the same objects.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

Answer = bool | Literal["error", "refused"]
Situation = Literal["update", "create", "delete"]
NAMESPACE: Final = "cel-parity"


class Case(NamedTuple):
    """An expression, the request that it is asked about, and the answer."""

    expression: str
    on: Situation
    answer: Answer


OLD: Final[dict[str, Any]] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "web",
        "namespace": NAMESPACE,
        "labels": {"app": "web", "team": "gold", "tier": ""},
        "annotations": {
            "example.com/owner": "alice",
            "example.com/since": "2024-02-29T12:30:45.5Z",
            "size": "1.5Gi",
            "word": "Größe",
        },
    },
    "spec": {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {
                "containers": [
                    {
                        "name": "main",
                        "image": "registry.example.com:5000/shop/web:1.10.2",
                        "args": ["--url=https://shop.example.com:8443/a%20b?x=1&x=2", "--net=10.0.0.0/8"],
                        "ports": [{"containerPort": 8080, "name": "http"}, {"containerPort": 8443, "name": "https"}],
                        "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m"}},
                        "livenessProbe": {"httpGet": {"path": "/", "port": "http"}},
                    },
                    {
                        "name": "side",
                        "image": "nginx",
                        "resources": {},
                        "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
                    },
                ]
            },
        },
    },
}
CHANGES: Final[dict[str, Any]] = {"spec": {"replicas": 0}, "metadata": {"labels": {"team": "silver", "new": "yes"}}}
"""What the update does to it (a merge patch)."""

CONFIG: Final[dict[str, Any]] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "settings", "namespace": NAMESPACE, "labels": {"app": "web"}},
    "data": {"number": "7", "empty": "", "text": "a,b,,c", "unicode": "é😀ñ", "nul": "a\x00b"},
}

_UPDATE: Final = """
object.spec.replicas == 0 | true
object.spec.replicas == 0.0 | true
object.spec.replicas < oldObject.spec.replicas | true
object.spec.replicas < 0.5 | true
oldObject.spec.replicas / 2 == 1 | true
-7 / 2 == -3 && -7 % 2 == -1 | true
oldObject.spec.replicas + 1 == 4 | true
oldObject.spec.replicas + 1.0 == 4.0 | error
type(object.spec.replicas) == int | true
type(object.spec.replicas) == double | false
object.spec.replicas == '0' | false
object.spec.replicas in [0, 1, 2] | true
string(oldObject.spec.replicas) == '3' | true
double(oldObject.spec.replicas) / 2.0 == 1.5 | true
uint(3) == 3u && dyn(3u) == 3 | true
9223372036854775807 + oldObject.spec.replicas > 0 | error
oldObject.spec.replicas / object.spec.replicas > 0 | error
1.0 / 0.0 > 1e300 | true
object.spec.nothing == 1 | error
has(object.spec.nothing) | false
has(object.spec.replicas) && !has(object.spec.paused) | true
has(object.spec.nothing.deeper) | error
object.spec.nothing == 1 || object.spec.replicas == 0 | true
object.spec.replicas == 0 || object.spec.nothing == 1 | true
object.spec.nothing == 1 && object.spec.replicas == 1 | false
object.spec.nothing == 1 || object.spec.replicas == 1 | error
object.spec.replicas == 0 ? true : object.spec.nothing == 1 | true
object.?spec.?nothing.?deeper.orValue('none') == 'none' | true
object.?spec.replicas.orValue(7) == 0 | true
object.spec.?nothing.hasValue() | false
object.metadata.labels[?'team'].orValue('') == 'silver' | true
object.?metadata.labels['team'].value() == 'silver' | true
optional.none().hasValue() || optional.of(1).value() == 1 | true
optional.ofNonZeroValue('').or(optional.of('b')).value() == 'b' | true
object.?spec.?nothing.value() == 1 | error
[?object.spec.?nothing, ?object.spec.?replicas].size() == 1 | true
{?'a': object.spec.?nothing, 'b': dyn(1)}.size() == 1 | true
object.spec.?replicas.optMap(n, n + 1).orValue(9) == 1 | true
oldObject.metadata.annotations.word.size() == 5 | true
size(bytes(oldObject.metadata.annotations.word)) == 7 | true
oldObject.metadata.labels.tier == '' | true
object.metadata.labels == oldObject.metadata.labels | false
object.spec.template == oldObject.spec.template | true
object.metadata.labels.size() == 4 | true
'new' in object.metadata.labels && !('new' in oldObject.metadata.labels) | true
object.metadata.labels.all(k, k.size() < 10) | true
object.metadata.labels.exists(k, !(k in oldObject.metadata.labels)) | true
object.metadata.labels.exists_one(k, k == 'app') | true
object.metadata.labels.map(k, k).size() == 4 | true
object.metadata.annotations['example.com/owner'] == 'alice' | true
object.metadata.annotations.missing == 'x' | error
object.metadata.name.startsWith('w') && object.metadata.name.endsWith('b') | true
object.metadata.name == 'web' && object.kind == 'Deployment' && object.apiVersion == 'apps/v1' | true
object.spec.strategy.rollingUpdate.maxSurge == '25%' | true
type(object.spec.strategy.rollingUpdate.maxUnavailable) == int | true
object.spec.strategy.rollingUpdate.maxSurge > 1 | error
object.spec.template.spec.containers.all(c, c.image.contains('/') || c.name == 'side') | true
object.spec.template.spec.containers.all(c, has(c.resources.limits)) | false
object.spec.template.spec.containers.exists(c, c.ports.size() == 2) | true
object.spec.template.spec.containers.all(c, c.ports.size() == 2) | error
object.spec.template.spec.containers.exists_one(c, c.livenessProbe.httpGet.port == 'http') | error
object.spec.template.spec.containers.filter(c, has(c.ports)).map(c, c.name) == ['main'] | true
object.spec.template.spec.containers.map(c, has(c.ports), c.name) == ['main'] | true
object.spec.template.spec.containers[1].readinessProbe.httpGet.port == 80 | true
object.spec.template.spec.containers[2].name == 'x' | error
object.spec.template.spec.containers.all(c, object.spec.template.spec.containers.exists(d, d.name == c.name)) | true
object.spec.template.spec.containers[0].ports.map(p, p.containerPort).sum() == 16523 | true
object.spec.template.spec.containers[0].ports.map(p, p.containerPort).isSorted() | true
object.spec.template.spec.containers.map(c, c.name).isSorted() | true
object.spec.template.spec.containers.map(c, c.name).indexOf('side') == 1 | true
[3, 1, 2].max() == 3 && [3, 1, 2].min() == 1 | true
['b', 'a', 'b'].lastIndexOf('b') == 2 | true
[1, 2, 3].slice(1, 3) == [2, 3] && [[1], [2]].flatten() == [1, 2] | true
[2, 1, 2].sort() == [1, 2, 2] && [2, 1, 2].distinct() == [2, 1] && [1, 2].reverse() == [2, 1] | true
lists.range(3) == [0, 1, 2] | true
[dyn('a'), dyn(1)].isSorted() | true
'%s'.format([dyn([dyn('a"'), dyn(1.5), dyn(null)])]) == '["a\\\\"", 1.500000, null]' | true
'%.1f %f'.format([1234567.25, 0.5]) == '1,234,567.2 0.500000' | true
dyn([]).sum() == 0 | true
dyn([]).max() == 0 | error
sets.contains(['a', 'b', 'c'], object.spec.template.spec.containers.map(c, c.name)) | false
sets.equivalent([1, 2, 2], [2, 1]) && sets.intersects([1], [2, 1]) | true
quantity(object.spec.template.spec.containers[0].resources.limits.memory).isGreaterThan(quantity('512Mi')) | true
quantity(object.metadata.annotations.size).compareTo(quantity('1536Mi')) == 0 | true
quantity('1Gi') == quantity('1024Mi') && quantity('1') == quantity('1000m') | true
quantity('500m').add(quantity('500m')).isInteger() || quantity('1000m').isInteger() || quantity('1.5Gi').isInteger() | false
quantity('1k').isInteger() && quantity('1Ki').asInteger() == 1024 && quantity('12e2').asInteger() == 1200 | true
quantity('500m').add(quantity('500m')).compareTo(quantity('1')) == 0 | true
quantity('500m').asInteger() == 0 | error
quantity('2').sub(3).asInteger() == -1 && sign(quantity('-1')) == -1 | true
quantity('50k').isInteger() && !quantity('1500m').isInteger() | true
quantity('1.5Gi').asApproximateFloat() == 1610612736.0 | true
isQuantity('1e3') && isQuantity('.5') && !isQuantity('1KB') && !isQuantity('') && !isQuantity('1 Gi') | true
quantity('abc') == quantity('1') | error
quantity('1') == quantity('0.1n').add(quantity('1')) | false
has(object.metadata.name.deeper) | false
object.metadata.name.?deeper.hasValue() | false
object.spec.template.spec.containers.?deeper.hasValue() | error
ip('10.1.2.3').family() == 4 && ip('::1').isLoopback() && !isIP('::ffff:1.2.3.4') && !isIP('010.0.0.1') | true
ip.isCanonical('2001:db8::1') && !ip.isCanonical('2001:DB8::1') | true
ip('169.254.1.1').isLinkLocalUnicast() && ip('224.0.0.5').isLinkLocalMulticast() && ip('8.8.8.8').isGlobalUnicast() | true
cidr(object.spec.template.spec.containers[0].args[1].substring(6)).containsIP('10.200.0.1') | true
cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !cidr('10.0.0.0/16').containsCIDR(cidr('10.0.0.0/8')) | true
cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.1.2.3/8').ip() == ip('10.1.2.3') | true
cidr('10.1.2.3/8').prefixLength() == 8 && string(cidr('10.1.2.3/8')) == '10.1.2.3/8' && !isCIDR('10.0.0.0/33') | true
ip('1.2.3') == ip('1.2.3.4') | error
url(object.spec.template.spec.containers[0].args[0].substring(6)).getHostname() == 'shop.example.com' | true
url('https://a.b:80/c%20d?e=f&e=g#h').getQuery()['e'] == ['f', 'g'] | true
url('https://[::1]:80/c%20d').getHost() == '[::1]:80' && url('https://[::1]:80/').getHostname() == '::1' | true
url('https://a.b:80/c%20d').getEscapedPath() == '/c%20d' && url('https://a.b:80').getPort() == '80' | true
isURL('/path') && !isURL('a b') && !isURL('../x') && isURL('http://x/a b') && !isURL('http://x:port/') | true
semver('1.10.2').isGreaterThan(semver('1.9.0')) && semver('1.0.0-rc.1').isLessThan(semver('1.0.0')) | true
semver('v1.2', true).minor() == 2 && !isSemver('v1.2') && isSemver('1.2.3+b') && !isSemver('01.2.3') | true
semver('1.0.0-alpha.1').compareTo(semver('1.0.0-alpha.beta')) == -1 | true
semver(object.spec.template.spec.containers[0].image.split(':')[2]).patch() == 2 | true
semver('x').major() == 1 | error
object.spec.template.spec.containers[0].image.find(':[0-9.]+$') == ':1.10.2' | true
'a1b22c'.findAll('[0-9]+') == ['1', '22'] && 'a1b22c'.findAll('[0-9]+', 1) == ['1'] && 'x'.find('[0-9]') == '' | true
object.metadata.name.matches('^w.b$') && !object.metadata.name.matches('^e') | true
format.dns1123Label().validate('abc') == optional.none() | true
format.dns1123Label().validate('-abc').hasValue() && format.named('uuid').hasValue() | true
!format.named('nothing').hasValue() && format.qualifiedName().validate('a.b/c') == optional.none() | true
format.date().validate('2024-02-30').hasValue() && !format.datetime().validate('2024-02-29T01:02:03Z').hasValue() | true
timestamp(object.metadata.annotations['example.com/since']).getFullYear() == 2024 | true
timestamp(object.metadata.annotations['example.com/since']).getDayOfYear() == 59 | true
timestamp(object.metadata.annotations['example.com/since']) > timestamp('2024-01-01T00:00:00+02:00') | true
timestamp(object.metadata.annotations['example.com/since']).getMilliseconds() == 500 | true
timestamp('2024-06-01T23:30:00Z').getHours('Europe/Berlin') == 1 | true
timestamp('2024-06-01T23:30:00Z').getDate('+02:00') == 2 && timestamp('2024-06-02T00:00:00Z').getDayOfWeek() == 0 | true
timestamp('2024-03-01T00:00:00Z') - timestamp('2024-02-29T00:00:00Z') == duration('24h') | true
timestamp('2024-02-29T00:00:00Z') + duration('1h30m') == timestamp('2024-02-29T01:30:00Z') | true
string(timestamp('2024-02-29T00:00:00.120Z')) == '2024-02-29T00:00:00.12Z' && int(timestamp('1970-01-01T00:01:00Z')) == 60 | true
duration('1h30m').getMinutes() == 90 && duration('1.5s').getMilliseconds() == 1500 | true
string(duration('90m')) == '5400s' && duration('-1s') < duration('0s') | true
object.metadata.creationTimestamp == oldObject.metadata.creationTimestamp && type(object.metadata.creationTimestamp) == string | true
object.metadata.name < 'wec' && 'Z' < 'a' && 'é' > 'z' && b'a' < b'b' && false < true | true
object.metadata.name > 1 | error
object.metadata.annotations.word.upperAscii() == 'GRößE' && 'ÀB'.lowerAscii() == 'Àb' | true
'a-b-c'.replace('-', '', 1) == 'ab-c' && 'abc'.replace('', '_') == '_a_b_c_' | true
' x '.trim() == 'x' && 'héllo'.charAt(1) == 'é' && 'héllo'.indexOf('l', 3) == 3 && 'abcabc'.lastIndexOf('bc') == 4 | true
'abc'.substring(1, 2) == 'b' && 'abc'.substring(3) == '' | true
'abc'.substring(2, 1) == '' | error
'abc'.charAt(4) == '' | error
'%s is %d, %.2f, %x, %b, %e'.format([dyn('a'), dyn(5), dyn(1.239), dyn(255), dyn(5), dyn(1234.5)]) == 'a is 5, 1.24, ff, 101, 1.234500\u00d710⁰³' | true
'%s %s %s'.format([dyn([1, 2]), dyn({'a': true}), dyn(null)]) == '[1, 2] {"a":true} null' | true
'%s %d'.format(['a', 1]) == 'a 1' | true
'%d'.format([dyn('a')]) == 'a' | error
strings.quote('a"b') == '"a\\\\"b"' | true
string(1.0) == '1' && string(1.5) == '1.5' && string(1e21) == '1e+21' && string(1234567.5) == '1.2345675e+06' && string(0.00001) == '1e-05' && string(true) == 'true' | true
int('42') == 42 && int(3.9) == 3 && double('1.5') == 1.5 && bool('true') && uint('7') == 7u | true
int(object.metadata.name) == 4 | error
int(1e19 * double(oldObject.spec.replicas)) == 1 | error
double('NaN') == double('NaN') | false
null == object.spec.replicas | false
{'a': [1], 'b': [1, 2]} == {'b': [1, 2], 'a': [1]} && {1: 'x'}[1] == 'x' && !(2 in {1: 'x'}) | true
[1, 2] + [3] == [1, 2, 3] && [1, 2] != [2, 1] && 'a' + 'b' == 'ab' | true
type(quantity('1')) == type(quantity('2')) && type(1) != type('') && type(type(1)) == type(type('')) | true
dyn(quantity('1')) == dyn('1') | error
dyn(1) == dyn(true) || dyn(0) == dyn(false) | false
request.operation == 'UPDATE' && request.kind.kind == 'Deployment' && request.resource.resource == 'deployments' | true
request.name == 'web' && request.namespace == object.metadata.namespace && request.dryRun | true
request.userInfo.username.size() > 0 && 'system:authenticated' in request.userInfo.groups | true
request.requestKind.version == 'v1' && request.requestResource.group == 'apps' | true
has(request.subResource) && request.subResource != '' | false
request.options.kind == 'UpdateOptions' && request.options.dryRun == ['All'] | true
namespaceObject.metadata.name == request.namespace && namespaceObject.metadata.labels.env == 'prod' | true
namespaceObject.metadata.annotations['example.com/note'] == 'hello' | true
has(namespaceObject.metadata.labels.missing) | false
variables.replicas == 0 && variables.before - variables.replicas == 3 | true
variables.images.exists(i, i == 'nginx') && variables.memory.isLessThan(quantity('2Gi')) | true
variables.broken == 1 || variables.replicas == 0 | true
variables.broken == 1 | error
"""

_CREATE: Final = r"""
oldObject == null | true
oldObject.metadata.name == 'x' | error
has(oldObject.metadata) | false
oldObject.?metadata.hasValue() | false
oldObject.?metadata.?name.orValue('x') == 'x' | true
oldObject != null && oldObject.metadata.name == 'x' | false
object != null && object.data.number == '7' | true
int(object.data.number) == 7 | true
object.data.number == 7 | false
object.data.number > 5 | error
object.data.unicode.size() == 3 && object.data.unicode.charAt(1) == '😀' && object.data.unicode.substring(2) == 'ñ' | true
bytes(object.data.unicode).size() == 8 | true
object.data.text.split(',') == ['a', 'b', '', 'c'] && object.data.text.split(',', 2) == ['a', 'b,,c'] | true
object.data.text.split(',').join('-') == 'a-b--c' && ''.split('') == [] && 'ab'.split('') == ['a', 'b'] | true
object.data.nul.size() == 3 && object.data.nul != 'a' && object.data.nul == 'a\u0000b' | true
object.data.empty == '' && object.data.empty.split(',') == [''] | true
object.data.all(k, type(object.data[k]) == string) | true
has(object.data.missing) || has(object.immutable) | false
request.operation == 'CREATE' && request.resource.group == '' && request.options.kind == 'CreateOptions' | true
has(object.metadata.uid) | true
"""

_DELETE: Final = """
object == null | true
object.metadata.name == 'settings' | error
has(object.metadata) | false
oldObject.metadata.name == 'settings' && oldObject.data.number == '7' | true
request.operation == 'DELETE' && request.name == 'settings' | true
object == null || object.data.number == '8' | true
object != null ? object.data.number == '8' : oldObject.data.number == '7' | true
request.options.kind == 'DeleteOptions' | true
(object == null ? oldObject : object).metadata.labels.app == 'web' | true
"""

REFUSED: Final = (
    "object.spec.",
    "object.spec.replicas",
    "objekt.spec.replicas == 1",
    "request.uid == 'x'",
    "request.kind.name == 'x'",
    "request.name == 1",
    "variables.missing == 1",
    "object.spec.replicas.isOdd()",
    "nothing(1)",
    "1 == 'a'",
    "1 == 1.0",
    "1 + 1.0 == 2.0",
    "[1, 2].includes(1)",
    "[1, 'a'] == []",
    "{'a': 1, 'b': 'c'}.a == 1",
    "'abc'.reverse() == 'cba'",
    "math.greatest(1, 2) == 2",
    "cel.bind(x, 1, x == 1)",
    "base64.encode(b'a') == 'YQ=='",
    "object.metadata.name.matches('[')",
    "duration('1x') == duration('1s')",
    "timestamp('yesterday') == timestamp('2024-01-01T00:00:00Z')",
    "quantity('1').isLessThan('2')",
    "quantity('1') == 1",
    "quantity(1).isInteger()",
    "ip('10.0.0.1') == cidr('10.0.0.0/8')",
    "semver('1.0.0').isLessThan(quantity('1'))",
    "string(quantity('1')) == '1'",
    "namespaceObject.metadata.nothing == 'x'",
    "[dyn('a'), 1] == []",
    "[1, null] == []",
    "{'a': 1, 'b': [1]}.size() == 2",
    "int('4x') == 4",
    "int(1e19) == 1",
    "uint(-1) == 1u",
    "double('x') == 1.0",
)
"""Kubernetes refuses these when the policy is applied, and so does kube-stepup."""

VARIABLES: Final = (
    ("replicas", "object.spec.replicas"),
    ("before", "oldObject.spec.replicas"),
    ("images", "object.spec.template.spec.containers.map(c, c.image)"),
    ("memory", "quantity(object.spec.template.spec.containers[0].resources.limits.memory)"),
    ("broken", "object.spec.nothing"),
)
"""Those of the cases about an update."""

_ANSWERS: Final[dict[str, Answer]] = {"true": True, "false": False, "error": "error"}


def _cases(table: str, on: Situation) -> list[Case]:
    rows = [line.rsplit(" | ", 1) for line in table.strip().splitlines()]
    return [Case(expression, on, _ANSWERS[answer]) for expression, answer in rows]


CASES: Final = [*_cases(_UPDATE, "update"), *_cases(_CREATE, "create"), *_cases(_DELETE, "delete")]
