"""Word lists that the texts of the demo data are drawn from."""

from __future__ import annotations

PEOPLE = "小王 小李 张老师 陈医生 刘阿姨 赵叔叔 周同学 吴经理 郑奶奶 孙司机 马教练 林记者".split()
MEN, WOMEN = "大明 建国 志强 小刚 国华 阿勇".split(), "小芳 丽娜 秀英 小红 美玲 阿兰".split()
WHEN = "昨天早上 今天中午 上个周末 去年夏天 刚才 前天晚上 放学以后 下班以后".split()
WHERE = "公园 图书馆 医院 超市 学校 车站 餐厅 博物馆 办公室 体育馆".split()
DOING = "看书 打电话 跑步 排队 唱歌 拍照 喝茶 下棋 画画 聊天".split()
NAME_CHARS = "安宝晨东方丰光海恒华嘉锦康乐明平清荣瑞盛泰天通文祥新兴雅永元云泽正中"
# Put behind every so many texts: what real files hold and naive readers stumble over.
ODDITIES = ("\u2028（有更新）", " iPhone 15 Pro", "（ＡＰＰ３６０）", "，“真的”……", " COVID-19", "\u3000①②③", "7×9＝63")
FILLERS = (
    "当地的天气四季分明，春天多风，夏天多雨。",
    "很多人喜欢在傍晚出来散步，顺便买一些水果。",
    "附近有一条小河，河水很清，两边种满了柳树。",
    "这里的交通十分方便，坐车去哪里都不远。",
    "这件事情后来被写进了报纸，大家都觉得很有意思。",
    "说起来容易，做起来却需要很多耐心和时间。",
)
ACTIONS = (
    "提前还款 修改手机号 开通分期 查询账单 取消扣款 提高额度 关闭服务 更换银行卡 申请退款 合并账单 绑定邮箱 领取红包 "
    "设置密码 打印发票 延期付款 注销账户"
).split()
HOW = ("怎么{}", "如何{}", "我想{}要怎么做", "请问怎样{}")
HOW_TOO = ("{}的步骤是什么", "{}在哪里操作", "{}有什么方法", "告诉我{}的流程")
OTHERWISE = ("为什么{}失败了", "{}会影响信用吗", "{}要收多少手续费", "{}以后多久到账")
HYPOTHESES = {
    "entailment": ("{where}里确实有人", "确实有人在{doing}", "{who}到过{where}", "{who}的确到过{where}"),
    "contradiction": ("{where}里没有人", "{who}从来没有{doing}", "{who}没有去{where}", "没有人在{doing}"),
    "neutral": ("{who}可能喜欢{doing}", "{who}也许常去{where}", "{who}可能住在{where}旁边", "也许还有人在{doing}"),
}
# Label, its official description, words that give it away.
NEWS = {
    "100": ("news_story", "故事 传说 村里 老人 从前 缘分 夜里 往事"),
    "101": ("news_culture", "书法 诗词 古画 戏曲 文物 非遗 国学 庙会"),
    "102": ("news_entertainment", "明星 电影 票房 演员 综艺 歌手 导演 红毯"),
    "103": ("news_sports", "足球 联赛 冠军 球员 篮球 主场 进球 教练"),
    "104": ("news_finance", "股市 基金 银行 利率 债券 涨停 投资 央行"),
    "106": ("news_house", "房价 楼盘 买房 首付 小区 物业 户型 租房"),
    "107": ("news_car", "汽车 新车 轿车 油耗 发动机 底盘 试驾 车型"),
    "108": ("news_edu", "高考 大学 学生 老师 作业 录取 考研 课程"),
    "109": ("news_tech", "手机 芯片 网络 软件 机器人 算法 数据 屏幕"),
    "110": ("news_military", "战机 航母 导弹 军队 演习 士兵 坦克 雷达"),
    "112": ("news_travel", "旅游 景区 酒店 机票 游客 自驾 古镇 海滩"),
    "113": ("news_world", "总统 外交 大使 国会 峰会 边境 选举 联合国"),
    "114": ("news_stock", "开盘 收盘 大盘 股价 牛市 仓位 个股 指数"),
    "115": ("news_agriculture", "小麦 农民 种植 化肥 养猪 大棚 果园 水稻"),
    "116": ("news_game", "游戏 玩家 英雄 副本 皮肤 手游 段位 装备"),
}
HEADLINES = (
    "{a}又有新消息，{b}引来关注",
    "关于{a}和{b}，你了解多少？",
    "{when}，{a}带火了{b}",
    "谈谈{a}：{b}到底怎么样",
    "“{name}”谈{a}，{b}成了焦点",
)
# The 119 classes of IFLYTEK are made of 17 fields and 7 kinds; each has words of its own.
APP_FIELDS = {
    "音乐": "歌曲 专辑",
    "视频": "影片 剧集",
    "购物": "商品 折扣",
    "美食": "菜谱 餐馆",
    "旅行": "机票 景点",
    "地图": "导航 路线",
    "天气": "气温 台风",
    "理财": "基金 存款",
    "健身": "瑜伽 减肥",
    "医疗": "挂号 药品",
    "英语": "单词 口语",
    "游戏": "关卡 英雄",
    "新闻": "头条 时事",
    "宠物": "猫咪 狗粮",
    "办公": "文档 会议",
    "摄影": "滤镜 相册",
    "汽车": "油耗 违章",
}
APP_KINDS = {
    "工具": "计算 扫描",
    "社区": "发帖 好友",
    "商城": "下单 包邮",
    "课堂": "名师 上课",
    "直播": "主播 弹幕",
    "助手": "提醒 语音",
    "百科": "词条 知识",
}
# Person's reasons make the pronoun a person, thing's reasons a thing.
THINGS = "书包 箱子 自行车 相机 椅子 花瓶 雨伞 毛衣".split()
REASONS_OF_PERSON, REASONS_OF_THING = "太累了 很着急 困了 饿了".split(), "太旧了 太重了 坏了 太脏了".split()
STUDIES = (
    "神经网络 图像识别 特征提取 目标检测",
    "水稻 氮肥 土壤水分 产量",
    "混凝土 抗压强度 裂缝 钢筋",
    "糖尿病 胰岛素 血糖 并发症",
    "锂电池 电解液 正极材料 充放电",
    "农村金融 小额信贷 利率 农户收入",
    "水库 泥沙淤积 洪水 径流",
    "唐代诗歌 意象 音韵 文人",
)
NOT_KEYWORDS = "有关问题 若干情况 一般说明 其他方面 各种因素 总体印象".split()
MILD = "有时候 偶尔 周末常常 差不多每周".split()
ABSOLUTE = "从来不 永远不 绝对不 根本不".split()
HOBBIES = "打羽毛球 做饭 看电影 弹钢琴 爬山 游泳 学外语 养花 写日记 逛书店".split()
# Words that call for an idiom, and the idioms that fit them; below those that are never right.
IDIOMS = {
    "街道 路口 车站 广场": "车水马龙 人山人海 川流不息 水泄不通",
    "功课 考试 作业 课文": "孜孜不倦 废寝忘食 勤学苦练 手不释卷",
    "晚饭 面条 烤鸭 点心": "津津有味 狼吞虎咽 垂涎欲滴 细嚼慢咽",
    "花园 湖边 山谷 草地": "鸟语花香 风和日丽 山清水秀 春色满园",
}
OTHER_IDIOMS = (
    "守株待兔 对牛弹琴 井底之蛙 九牛一毛 亡羊补牢 刻舟求剑 叶公好龙 杯弓蛇影 掩耳盗铃 自相矛盾 滥竽充数 画饼充饥 "
    "望梅止渴 纸上谈兵 四面楚歌 破釜沉舟 卧薪尝胆 三顾茅庐 指鹿为马 完璧归赵"
).split()
CLOZES = (
    "{when}，说到{cue}，大家都想起{blank}这个词。",
    "{who}谈起{cue}，只用{blank}来形容。",
    "那天的{cue}可以说是{blank}。",
)
SURNAMES, GIVEN = "王李张刘陈杨赵黄周吴", "伟芳娜敏静强磊军洋艳勇杰娟涛超霞"
CITIES = "临江市 安丰市 海宁市 南川市 东台市 石林市 松原市 桐城市".split()
BODIES = "大学 公司 剧团 出版社 医院 银行 杂志 乐队".split()
